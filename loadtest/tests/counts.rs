//! What is reported is what the server saw.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "support/server.rs"]
#[allow(dead_code)]
mod server;

use server::{Behaviour, Seen, Server};

#[test]
fn handshakes() {
    let server = Server::start(Behaviour::default());
    let report = server.load(
        "handshake",
        &["--count=50", "--connections=4", "--warmup=0s"],
    );
    assert_eq!(report["succeeded"], 50);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["handshakes"]["full"], 50);
    assert_eq!(Seen::get(&server.seen.full), 50);
    assert_eq!(
        Seen::get(&server.seen.bytes),
        50,
        "one byte is echoed on each"
    );
    assert_eq!(report["tls"]["version"], "TLSv1_3");
    assert_eq!(report["tls"]["group"], "X25519");
}

#[test]
fn the_offered_group_and_cipher_are_used() {
    let server = Server::start(Behaviour::default());
    let options = [
        "--count=1",
        "--warmup=0s",
        "--group=x25519mlkem768",
        "--cipher=chacha20",
    ];
    let report = server.load("handshake", &options);
    assert_eq!(report["tls"]["group"], "X25519MLKEM768");
    assert_eq!(report["tls"]["cipher"], "TLS13_CHACHA20_POLY1305_SHA256");
}

#[test]
fn requests() {
    let server = Server::start(Behaviour::default());
    let options = [
        "--count=200",
        "--connections=8",
        "--warmup=0s",
        "--size=300",
        "--threads=2",
    ];
    let report = server.load("rr", &options);
    assert_eq!(report["succeeded"], 200);
    assert_eq!(report["bytes"], 200 * 600);
    assert_eq!(Seen::get(&server.seen.bytes), 200 * 300);
    assert_eq!(Seen::get(&server.seen.full), 8, "connections stay");
}

#[test]
fn the_warm_up_is_not_counted() {
    let server = Server::start(Behaviour::default());
    let options = [
        "--count=10",
        "--connections=1",
        "--warmup=200ms",
        "--size=1",
    ];
    let report = server.load("rr", &options);
    assert_eq!(report["succeeded"], 10);
    assert!(
        Seen::get(&server.seen.bytes) > 10,
        "requests were made during the warm-up"
    );
}

#[test]
fn uploaded_bytes() {
    let backend = Backend::start("sink");
    let options = [
        "--target",
        &backend.address,
        "--bytes=8MiB",
        "--warmup=0s",
        "--connections=2",
    ];
    let report = server::report(&server::run("bulk", &options));
    let bytes = report["bytes"].as_u64().unwrap();
    let limit = 8 * 1024 * 1024;
    assert!((limit..=limit + 2 * 65_536).contains(&bytes), "{bytes}");
    assert_eq!(report["succeeded"], bytes / 65_536);
}

#[test]
fn downloaded_bytes() {
    let backend = Backend::start("source");
    let options = [
        "--target",
        &backend.address,
        "--bytes=8MiB",
        "--warmup=0s",
        "--connections=2",
        "--direction=download",
    ];
    let report = server::report(&server::run("bulk", &options));
    assert!(report["bytes"].as_u64().unwrap() >= 8 * 1024 * 1024);
    assert_eq!(report["failed"], 0);
}

#[test]
fn idle_connections_are_held_and_alive() {
    let server = Server::start(Behaviour::default());
    let pid = std::process::id().to_string();
    let options = [
        "--connections=100",
        "--baseline=10",
        "--settle=100ms",
        "--pid",
        &pid,
    ];
    let report = server.load("idle", &options);
    assert_eq!(report["succeeded"], 110);
    assert_eq!(Seen::get(&server.seen.full), 110);
    let memory = &report["memory"][0];
    assert_eq!(memory["pid"].as_u64().unwrap().to_string(), pid);
    // This server holds a 16 KiB buffer for each connection.
    assert!(
        memory["rss_per_connection"].as_f64().unwrap() > 8_000.0,
        "{memory}"
    );
}

#[test]
fn unix_sockets_are_targets_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", dir.path().join("echo.sock").display());
    let backend = Backend::listen("echo", &socket);
    let options = ["--target", &backend.address, "--count=30", "--warmup=0s"];
    let report = server::report(&server::run("rr", &options));
    assert_eq!(report["succeeded"], 30);
    assert!(report["tls"].is_null());
}

#[test]
fn a_backend_listens_on_loopback_only() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let output = command
        .args(["serve", "--mode=echo", "--listen=0.0.0.0:0", "--for=1s"])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}

/// `loadtest serve`, ended when dropped.
struct Backend {
    child: std::process::Child,
    address: String,
}

impl Backend {
    fn start(mode: &str) -> Self {
        Self::listen(mode, "127.0.0.1:0")
    }

    fn listen(mode: &str, address: &str) -> Self {
        use std::io::BufRead;
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(["serve", "--mode", mode, "--listen", address, "--for", "60s"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufReader::new(stdout)
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned();
        Self { child, address }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
