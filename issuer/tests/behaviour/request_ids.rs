//! One id brings together an agent's call, the log, the audit event and the answer.

use proto::issue::v1::{IssueSvidsRequest, issue_service_client::IssueServiceClient};
use rcgen::KeyPair;
use tonic::{Request, metadata::MetadataMap};

use super::harness::{Issuer, block_on, csr, signal, x509};

fn request(id: Option<&str>, name: &str) -> Request<IssueSvidsRequest> {
    let csr = csr(&KeyPair::generate().unwrap());
    let mut request = Request::new(x509(name, &csr, None));
    if let Some(id) = id {
        let id = id.parse().unwrap();
        request.metadata_mut().insert("x-request-id", id);
    }
    request
}

fn id(metadata: &MetadataMap) -> String {
    let id = metadata.get("x-request-id").expect("no x-request-id");
    id.to_str().unwrap().to_owned()
}

#[test]
fn the_callers_id_is_in_log_event_and_answer() {
    let issuer = Issuer::start_with(&["--log-level", "issuer=debug"]);
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let answer = client.issue_svids(request(Some("call-1"), "app")).await;
        assert_eq!(id(answer.unwrap().metadata()), "call-1");
        let event = issuer.last_event("spiffe.svid.issued");
        assert_eq!(event["fields"]["request_id"], "call-1", "{event}");

        let refused = client.issue_svids(request(Some("call-2"), "other")).await;
        assert_eq!(id(refused.unwrap().metadata()), "call-2");
        let event = issuer.last_event("spiffe.svid.issued");
        assert_eq!(event["success"], false);
        assert_eq!(event["fields"]["request_id"], "call-2", "{event}");
        issuer.log.wait_for("an SVID was refused");
        let log = issuer.log.text();
        for (said, of) in [
            ("an SVID was issued", "request_id=call-1"),
            ("an SVID was refused", "request_id=call-2"),
        ] {
            let line = log.lines().rfind(|line| line.contains(said)).unwrap();
            assert!(line.contains(of), "{line}");
            assert!(line.contains(&bot.certificate.instance_id), "{line}");
        }

        // None, or one that could do harm: a new one each time.
        let mut made = Vec::new();
        let long = "x".repeat(65);
        for given in [None, Some("a b"), Some(long.as_str())] {
            let answer = client.issue_svids(request(given, "app")).await;
            let id = id(answer.unwrap().metadata());
            assert_ne!(Some(id.as_str()), given);
            let event = issuer.last_event("spiffe.svid.issued");
            assert_eq!(event["fields"]["request_id"], id.as_str());
            made.push(id);
        }
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 3);
    });
    // What nobody asked for over the API has none.
    let created = issuer.last_event("authority.create");
    assert_eq!(created["fields"]["request_id"], serde_json::Value::Null);
}

#[test]
fn a_log_of_warnings_only_has_the_ids_too() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    std::fs::write(&file, "log_level: info\n").unwrap();
    let issuer = Issuer::start_with(&["--config", file.to_str().unwrap()]);
    std::fs::write(&file, "log_level: warn\n").unwrap();
    signal("HUP", issuer.process.id());
    let url = format!("http://{}/metrics", issuer.diagnostics);
    let in_force = || {
        let output = std::process::Command::new("curl")
            .args(["-s", &url])
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.contains("issuer_config_reloads_total{result=\"success\"} 1")
    };
    while !in_force() {}
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let answer = client.issue_svids(request(Some("call-3"), "other")).await;
        assert!(answer.unwrap().into_inner().results[0].refusal.is_some());
        issuer.log.wait_for("an SVID was refused");
        let log = issuer.log.text();
        let line = log
            .lines()
            .find(|line| line.contains("an SVID was refused"));
        assert!(line.unwrap().contains("request_id=call-3"), "{log}");
        assert!(!log.contains("a bot joined"), "{log}");
    });
}
