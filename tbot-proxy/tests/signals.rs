//! `SIGUSR1` renews every identity; a second `SIGTERM` ends at once.

#![allow(clippy::unwrap_used)]

use std::{fs, io::Write, net::TcpStream};

use e2e::{Agent, EchoServer, Issuer, eventually, free_port, inbound, outbound, x509_output};
use rustix::process::Signal;

#[test]
fn sigusr1_renews_the_bot_and_every_svid() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let mut agent = Agent::start(&issuer, &token, &[x509_output("app", &out)]);
    let before = fs::read(out.join("svid.pem")).unwrap();
    let key = fs::read(out.join("svid_key.pem")).unwrap();
    agent.process().signal(Signal::USR1);
    eventually("a new SVID in the files", || {
        fs::read(out.join("svid.pem")).unwrap() != before
    });
    assert_ne!(
        fs::read(out.join("svid_key.pem")).unwrap(),
        key,
        "a new key each time"
    );
    issuer.audit_event("the bot renewed", |event| {
        event["event"] == "bot.renew" && event["success"] == true
    });
    assert!(agent.is_ready());
}

#[test]
fn a_second_signal_ends_at_once() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let echo = EchoServer::start();
    let (mtls, plain) = (free_port(), free_port());
    let own = ["spiffe://e2e.example/app"];
    let mut agent = Agent::start(
        &issuer,
        &token,
        &[
            inbound("app", mtls, &echo.address(), &own),
            outbound("app", plain, mtls, &own),
        ],
    );
    let mut live = TcpStream::connect(("127.0.0.1", plain)).unwrap();
    live.write_all(b"held open").unwrap();
    agent.process().signal(Signal::TERM);
    eventually("the drain has begun", || {
        agent
            .get("/readyz")
            .is_some_and(|(status, body)| status == 503 && body.contains("draining"))
    });
    assert!(agent.process().is_running());
    agent.process().signal(Signal::TERM);
    let status = agent.process().wait();
    assert_eq!(status.code(), Some(1), "{}", agent.log());
    assert!(
        !agent.connections().is_empty(),
        "cut connections are recorded"
    );
}
