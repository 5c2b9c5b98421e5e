//! While the issuer is away the last good SVID is served, until it expires: then
//! it is taken away, readiness says why, and the return of the issuer mends it.

#![allow(clippy::unwrap_used)]

use e2e::{Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound};

#[test]
fn it_is_served_until_it_expires_and_comes_back() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    let echo = EchoServer::start();
    let (mtls, plain) = (free_port(), free_port());
    let own = ["spiffe://e2e.example/app"];
    let short = |service: String| format!("{service}, credential_ttl: 8s");
    let agent = Agent::start(
        &issuer,
        &token,
        &[
            short(inbound("app", mtls, &echo.address(), &own)),
            short(outbound("app", plain, mtls, &own)),
        ],
    );
    assert!(connect(plain).is_ok());

    issuer.kill();
    eventually("a renewal has failed while the SVID is valid", || {
        let (status, body) = agent.get("/readyz").unwrap();
        status == 200 && body.contains("workload_identity `app`") && body.contains("refused")
    });
    assert!(
        connect(plain).is_ok(),
        "new connections on the last good SVID"
    );

    eventually("the SVID has expired", || {
        matches!(agent.get("/readyz"), Some((503, _)))
    });
    let (_, body) = agent.get("/readyz/app-in").unwrap();
    assert!(
        body.contains("not_ready") && body.contains("reason"),
        "{body}"
    );
    assert_eq!(
        agent.metric("tbot_svid_expiry_timestamp_seconds{service=\"app-in\"}"),
        Some(0.0)
    );
    assert!(
        connect(plain).is_err(),
        "nothing is carried without an identity"
    );
    assert!(agent.log().contains("expired"));

    issuer.restart();
    agent.wait();
    assert!(connect(plain).is_ok());
}
