//! Two processes that renew one bot identity look like a stolen copy: the second
//! one does not start.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use e2e::{Agent, Issuer, binary, x509_output};

#[test]
fn a_second_agent_on_the_same_storage_is_refused() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(
        &issuer,
        &token,
        &[x509_output("app", &home.path().join("out"))],
    );
    let second = Command::new(binary("tbot-proxy"))
        .args([
            "--log-level",
            "off",
            "start",
            "--diagnostics",
            "127.0.0.1:0",
            "-c",
        ])
        .arg(agent.path("agent.yaml"))
        .output()
        .unwrap();
    let line = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{line}");
    assert!(line.contains("in use by another tbot-proxy"), "{line}");
    assert!(line.contains("storage"), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    // It is free again as soon as the first has ended, however it did.
    agent.restart();
    agent.wait();
}
