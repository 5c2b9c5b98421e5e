//! gRPC health and reflection, asked by Python's gRPC (a client that is not ours) on
//! the admin socket and by tonic's clients on the network.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::harness::{Issuer, block_on, signal};

/// The peers' Python, which `make test` installs.
fn python() -> Command {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_issuer"));
    let python = target.ancestors().nth(2).unwrap().join("peers/bin/python");
    assert!(python.exists(), "no {python:?}: `make peers` installs it");
    let mut command = Command::new(python);
    command.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/peers/health_and_reflection.py"
    ));
    command
}

#[test]
fn pythons_grpc_finds_the_services_and_calls_one_by_what_it_was_told() {
    let mut issuer = Issuer::start();
    let mut client = python()
        .arg(issuer.data_dir().join("admin.sock"))
        .arg("--watch")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap());
    let mut told = String::new();
    lines.read_line(&mut told).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told["services"],
        serde_json::json!(["grpc.health.v1.Health", "tbot.admin.v1.AdminService"])
    );
    let methods = told["methods"].as_array().unwrap();
    assert!(methods.contains(&"ApplyResources".into()), "{methods:?}");
    assert_eq!(told["trust_domain"], "test.example");
    assert_eq!(told["request_id"], "from-python-1");
    assert_eq!(told["health"][""], "SERVING");
    assert_eq!(told["health"]["tbot.admin.v1.AdminService"], "SERVING");
    assert_eq!(told["health"]["no.such.Service"], "NOT_FOUND");
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert_eq!(first, "SERVING\n");
    // The watcher is told of the drain, and does not hold it up.
    signal("TERM", issuer.process.id());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "NOT_SERVING\nUNAVAILABLE\n");
    assert!(client.wait().unwrap().success());
    assert!(issuer.process.wait().unwrap().success());
    let log = issuer.log.text();
    assert!(!log.contains("did not end in time"), "{log}");
}

async fn services(channel: Channel) -> Result<Vec<String>, tonic::Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answer = client
        .server_reflection_info(tokio_stream::once(request))
        .await?;
    let answer = answer.into_inner().message().await?.unwrap();
    match answer.message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => Ok(list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect()),
        other => panic!("{other:?}"),
    }
}

async fn health(channel: Channel, service: &str) -> Result<ServingStatus, Code> {
    let service = service.to_owned();
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await;
    answer
        .map(|answer| answer.into_inner().status())
        .map_err(|status| status.code())
}

#[test]
fn the_network_tells_its_services_only_where_it_is_allowed() {
    let closed = Issuer::start();
    let open = Issuer::start_with(&["--reflection"]);
    block_on(async {
        let refused = services(closed.anonymous().await).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unimplemented);
        let told = services(open.anonymous().await).await.unwrap();
        for name in ["tbot.issue.v1.IssueService", "tbot.join.v1.JoinService"] {
            assert!(told.contains(&name.to_owned()), "{told:?}");
        }
        assert!(!told.contains(&"tbot.admin.v1.AdminService".to_owned()));
        let channel = closed.anonymous().await;
        for (service, expected) in [
            ("", Ok(ServingStatus::Serving)),
            ("tbot.issue.v1.IssueService", Ok(ServingStatus::Serving)),
            ("tbot.admin.v1.AdminService", Err(Code::NotFound)),
        ] {
            assert_eq!(
                health(channel.clone(), service).await,
                expected,
                "{service:?}"
            );
        }
    });
}

#[test]
fn an_idle_question_does_not_hold_up_a_drain() {
    let mut issuer = Issuer::start_with(&["--reflection"]);
    block_on(async {
        let mut client = ServerReflectionClient::new(issuer.anonymous().await);
        // Asks nothing, for as long as it may.
        let answer = client
            .server_reflection_info(tokio_stream::pending())
            .await
            .unwrap();
        signal("TERM", issuer.process.id());
        let status = answer.into_inner().message().await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(issuer.process.wait().unwrap().success());
        let log = issuer.log.text();
        assert!(!log.contains("did not end in time"), "{log}");
    });
}
