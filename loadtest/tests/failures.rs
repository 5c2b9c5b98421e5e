//! Failures are counted by kind, say why, and decide on the exit status.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "support/server.rs"]
#[allow(dead_code)]
mod server;

use std::process::Output;

use server::{Behaviour, Server};

const FEW: [&str; 3] = ["--count=3", "--connections=1", "--warmup=0s"];

fn errors(output: &Output, kind: &str) -> serde_json::Value {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["errors"].get(kind).is_some(), "{report:#}");
    report["errors"][kind].clone()
}

fn with<'a>(tls: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    tls.iter()
        .map(String::as_str)
        .chain(FEW)
        .chain(more.iter().copied())
        .collect()
}

#[test]
fn a_closed_port() {
    // Bound and never listened on: nobody else gets this port, and connecting to it is refused.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = taken.local_addr().unwrap().to_string();
    let options: Vec<&str> = ["--target", &target].into_iter().chain(FEW).collect();
    let output = server::run("handshake", &options);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors(&output, "connect")["count"], 3);
    assert!(
        errors(&output, "connect")["first"]
            .as_str()
            .unwrap()
            .contains(&target)
    );
    let tolerated: Vec<&str> = options.into_iter().chain(["--max-error-rate=1"]).collect();
    assert!(server::run("handshake", &tolerated).status.success());
}

#[test]
fn a_server_that_refuses_the_client_certificate_is_noticed_by_the_probe() {
    let server = Server::start(Behaviour::default());
    let (target, ca) = (server.address.to_string(), server.file("ca.pem"));
    let no_cert = ["--target", &target, "--tls", "--ca", &ca].map(str::to_owned);
    let output = server::run("handshake", &with(&no_cert, &[]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors(&output, "handshake")["count"], 3);
    // TLS 1.3: the client alone cannot know.
    assert!(
        server::run("handshake", &with(&no_cert, &["--no-probe"]))
            .status
            .success()
    );
}

#[test]
fn a_server_of_another_id_is_refused() {
    let server = Server::start(Behaviour::default());
    let tls = server.tls_options();
    let right = with(&tls, &["--expect-id=spiffe://bench.test/server"]);
    assert!(server::run("handshake", &right).status.success());
    let output = server::run(
        "handshake",
        &with(&tls, &["--expect-id=spiffe://bench.test/serve"]),
    );
    assert_eq!(output.status.code(), Some(1));
    let first = errors(&output, "handshake")["first"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(first.contains("spiffe://bench.test/server"), "{first}");
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let server = Server::start(Behaviour::default());
    let other = tempfile::tempdir().unwrap();
    loadtest::certs::write(other.path(), "bench.test").unwrap();
    let ca = other.path().join("ca.pem");
    let target = server.address.to_string();
    let tls = ["--target", &target, "--tls", "--ca", ca.to_str().unwrap()].map(str::to_owned);
    let output = server::run("handshake", &with(&tls, &[]));
    assert_eq!(errors(&output, "handshake")["count"], 3);
}

#[test]
fn other_machines_are_refused_before_anything_is_sent() {
    for target in ["192.0.2.1:443", "0.0.0.0:443", "example.org:443"] {
        for more in [None, Some("--allow-private")] {
            let options: Vec<&str> = ["--target", target]
                .into_iter()
                .chain(FEW)
                .chain(more)
                .collect();
            let output = server::run("handshake", &options);
            assert_eq!(output.status.code(), Some(2), "{target} {more:?}");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(stderr.contains(target), "{stderr}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn unreadable_files_are_named() {
    let options = [
        "--target",
        "127.0.0.1:9",
        "--tls",
        "--ca",
        "/no/such/ca.pem",
    ];
    let output = server::run("handshake", &options);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/ca.pem"));
}
