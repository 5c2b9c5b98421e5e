//! `--resume always` resumes, `never` does not, and the server agrees on which it was.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "support/server.rs"]
#[allow(dead_code)]
mod server;

use server::{Behaviour, Seen, Server};

#[test]
fn resumed_handshakes_are_resumed_at_the_server() {
    let server = Server::start(Behaviour::default());
    let options = [
        "--count=40",
        "--connections=3",
        "--warmup=1s",
        "--resume=always",
    ];
    let report = server.load("handshake", &options);
    assert_eq!(report["handshakes"]["resumed"], 40);
    assert_eq!(report["handshakes"]["full"], 0);
    assert_eq!(Seen::get(&server.seen.full), 3, "the first of each worker");
    assert!(Seen::get(&server.seen.resumed) >= 40);
}

#[test]
fn by_default_every_handshake_is_full() {
    let server = Server::start(Behaviour::default());
    server.load(
        "handshake",
        &["--count=20", "--connections=2", "--warmup=0s"],
    );
    assert_eq!(Seen::get(&server.seen.full), 20);
    assert_eq!(Seen::get(&server.seen.resumed), 0);
}

#[test]
fn a_full_handshake_instead_of_a_resumed_one_is_a_failure() {
    let server = Server::start(Behaviour {
        tickets: false,
        ..Behaviour::default()
    });
    let tls = server.tls_options();
    let mut options: Vec<&str> = tls.iter().map(String::as_str).collect();
    options.extend([
        "--count=5",
        "--connections=1",
        "--warmup=0s",
        "--resume=always",
    ]);
    let output = server::run("handshake", &options);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"]["not_resumed"]["count"], 5);
}
