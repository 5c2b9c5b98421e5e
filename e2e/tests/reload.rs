//! `SIGHUP` reloads the configuration: a broken file keeps the old one running
//! and says why; a good one changes what it names; live connections stay.

use std::net::TcpStream;

use e2e::{Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound, ping};
use rustix::process::Signal;

const FRONTEND: &str = "spiffe://e2e.example/frontend";
const BACKEND: &str = "spiffe://e2e.example/backend";

#[test]
fn a_broken_file_changes_nothing_and_a_good_one_what_it_names() {
    let issuer = Issuer::start();
    let (backend_token, frontend_token) = (issuer.register("backend"), issuer.register("frontend"));
    let echo = EchoServer::start();
    let (mtls, plain, second) = (free_port(), free_port(), free_port());
    let mut backend = Agent::start(
        &issuer,
        &backend_token,
        &[inbound("backend", mtls, &echo.address(), &[FRONTEND])],
    );
    let _frontend = Agent::start(
        &issuer,
        &frontend_token,
        &[outbound("frontend", plain, mtls, &[BACKEND])],
    );
    let mut live = connect(plain).unwrap();

    // Broken: two mistakes, both named with their place.
    backend.write_config_text("version: v1\nservises: []\nissuer: { address: nowhere }\n");
    backend.process().signal(Signal::HUP);
    eventually("the log names both mistakes", || {
        let log = backend.log();
        log.contains("agent.yaml:2:1") && log.contains("services") && log.contains("agent.yaml:3:")
    });
    ping(&mut live).unwrap();
    connect(plain).unwrap();
    assert!(backend.is_ready());

    // Good: one more listener; the rest untouched.
    let more = inbound("backend", second, &echo.address(), &[FRONTEND])
        .replace("name: backend-in", "name: second-in");
    backend.write_services(&[inbound("backend", mtls, &echo.address(), &[FRONTEND]), more]);
    backend.process().signal(Signal::HUP);
    eventually("the second listener is there", || {
        TcpStream::connect(("127.0.0.1", second)).is_ok()
    });
    ping(&mut live).unwrap();

    // A policy that no longer allows the peer cuts its live connection.
    backend.write_services(&[inbound("backend", mtls, &echo.address(), &[BACKEND])]);
    backend.process().signal(Signal::HUP);
    eventually("the live connection is cut", || ping(&mut live).is_err());
    eventually("the removed listener is gone", || {
        TcpStream::connect(("127.0.0.1", second)).is_err()
    });
    assert!(connect(plain).is_err());
    backend.connection("a record of the cut", |r| r["reason"] == "policy_changed");
    backend.connection("a record of the refusal", |r| {
        r["reason"] == "peer_not_allowed"
    });
}
