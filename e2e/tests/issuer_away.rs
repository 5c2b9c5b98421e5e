//! The issuer is away: at the agent's start, and by `kill -9` later. The agent
//! serves on with what it has and recovers by itself.

use e2e::{
    Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound, x509_output,
};

#[test]
fn an_agent_that_starts_first_joins_when_the_issuer_comes() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    issuer.kill();

    let files = tempfile::tempdir().unwrap();
    let svid = files.path().join("svid");
    let mut agent = Agent::start_without_waiting(&issuer, &token, &[x509_output("app", &svid)]);
    eventually("the agent says that it is not ready, and why", || {
        agent.get("/readyz").is_some_and(|(status, body)| {
            status == 503 && body.contains("app-files") && body.contains("reason")
        })
    });
    assert!(matches!(agent.get("/livez"), Some((200, _))));
    assert!(agent.process().is_running());
    assert!(!svid.join("svid.pem").exists());

    issuer.restart();
    agent.wait();
    assert!(svid.join("svid.pem").exists());
}

#[test]
fn an_issuer_killed_and_restarted_interrupts_nothing() {
    let mut issuer = Issuer::start();
    let (backend_token, frontend_token) = (issuer.register("backend"), issuer.register("frontend"));
    let echo = EchoServer::start();
    let (mtls, plain) = (free_port(), free_port());
    let files = tempfile::tempdir().unwrap();
    let svid = files.path().join("svid");
    let backend = Agent::start(
        &issuer,
        &backend_token,
        &[
            inbound(
                "backend",
                mtls,
                &echo.address(),
                &["spiffe://e2e.example/frontend"],
            ),
            x509_output("backend", &svid),
        ],
    );
    let mut frontend = Agent::start(
        &issuer,
        &frontend_token,
        &[outbound(
            "frontend",
            plain,
            mtls,
            &["spiffe://e2e.example/backend"],
        )],
    );
    assert!(connect(plain).is_ok());

    issuer.kill();
    assert!(
        connect(plain).is_ok(),
        "new connections while the issuer is away"
    );
    assert!(backend.is_ready(), "{:?}", backend.get("/readyz"));

    // An agent that restarts meanwhile has its bot identity, but no SVID: it
    // refuses connections rather than carry them without an identity.
    frontend.restart();
    eventually("the restarted agent answers", || {
        frontend.get("/livez").is_some()
    });
    assert!(!frontend.is_ready());
    assert!(connect(plain).is_err());

    let before = std::fs::read(svid.join("svid.pem")).unwrap();
    issuer.restart();
    frontend.wait();
    assert!(connect(plain).is_ok());
    issuer.run(&["renew-now"]);
    eventually("the running agent follows the new issuer process", || {
        std::fs::read(svid.join("svid.pem")).unwrap() != before
    });
    let instances = issuer.json(&["bot", "instances"]).to_string();
    assert!(!instances.contains("copied"), "{instances}");
}
