//! The issuer is away for longer than an SVID lives: the last good identity is
//! served until it expires, not a moment longer, and everything recovers.

use std::{
    net::TcpStream,
    time::{SystemTime, UNIX_EPOCH},
};

use e2e::{Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound, ping};
use rustix::process::Signal;

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

#[test]
fn an_issuer_that_hangs_delays_no_expiry() {
    let mut issuer = Issuer::start();
    let token = issuer.register("backend");
    let echo = EchoServer::start();
    let service = inbound(
        "backend",
        free_port(),
        &echo.address(),
        &["spiffe://e2e.example/frontend"],
    );
    let backend = Agent::start(&issuer, &token, &[format!("{service}, credential_ttl: 6s")]);
    // Connections stay open, new ones are accepted by the kernel, and nothing is answered.
    issuer.process().signal(Signal::STOP);
    let mut not_after = 0.0;
    eventually("the agent says that its SVID has expired", || {
        let expiry = backend.metric("tbot_svid_expiry_timestamp_seconds");
        not_after = expiry.unwrap_or_default().max(not_after);
        backend
            .get("/readyz/backend-in")
            .is_some_and(|(status, body)| status == 503 && body.contains("expired"))
    });
    let late = now() - not_after;
    // Not only when a call to the issuer gives up, which takes at least ten seconds more.
    assert!((0.0..8.0).contains(&late), "{late} s after its end");

    issuer.process().signal(Signal::CONT);
    eventually("the agent recovers by itself", || backend.is_ready());
}

#[test]
fn nothing_is_carried_on_an_expired_identity() {
    let mut issuer = Issuer::start();
    let (backend_token, frontend_token) = (issuer.register("backend"), issuer.register("frontend"));
    let echo = EchoServer::start();
    let (mtls, plain) = (free_port(), free_port());
    let short = |service: String| format!("{service}, credential_ttl: 6s");
    let backend = Agent::start(
        &issuer,
        &backend_token,
        &[short(inbound(
            "backend",
            mtls,
            &echo.address(),
            &["spiffe://e2e.example/frontend"],
        ))],
    );
    let frontend = Agent::start(
        &issuer,
        &frontend_token,
        &[short(outbound(
            "frontend",
            plain,
            mtls,
            &["spiffe://e2e.example/backend"],
        ))],
    );
    let mut live = TcpStream::connect(("127.0.0.1", plain)).unwrap();
    ping(&mut live).unwrap();
    issuer.kill();
    ping(&mut live).unwrap();

    eventually("both agents say that their SVID has expired", || {
        [&backend, &frontend].into_iter().all(|agent| {
            agent
                .get("/readyz")
                .is_some_and(|(status, body)| status == 503 && body.contains("expired"))
        })
    });
    eventually("the live connection is cut", || ping(&mut live).is_err());
    // Both SVIDs end in the same second: whichever proxy is first cuts, the other sees a reset.
    eventually("the lease's end is recorded", || {
        let mut records = [&backend, &frontend]
            .into_iter()
            .flat_map(Agent::connections);
        records.any(|r| r["reason"] == "peer_svid_expired")
    });
    assert!(connect(plain).is_err());
    frontend.connection("a connection without an identity is recorded", |r| {
        r["reason"] == "no_identity"
    });

    issuer.restart();
    eventually("traffic flows again by itself", || connect(plain).is_ok());
    assert!(backend.is_ready() && frontend.is_ready());
}
