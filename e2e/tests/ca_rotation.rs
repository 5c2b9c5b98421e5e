//! The issuer's CA is succeeded under agents that are at work, by order and at the end of
//! its life: nothing breaks, nobody needs a new pin or a new token.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use e2e::{
    Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound, ping, x509_output,
};
use rustix::process::Signal;
use serde_json::Value;

/// A backend and a frontend with proxies between them; the backend writes its SVID too.
struct World {
    backend: Agent,
    frontend: Agent,
    plain: u16,
    files: tempfile::TempDir,
    _echo: EchoServer,
}

impl World {
    fn start(issuer: &Issuer) -> Self {
        let tokens = (issuer.register("backend"), issuer.register("frontend"));
        let echo = EchoServer::start();
        let (mtls, plain) = (free_port(), free_port());
        let files = tempfile::tempdir().unwrap();
        let backend = Agent::start(
            issuer,
            &tokens.0,
            &[
                inbound(
                    "backend",
                    mtls,
                    &echo.address(),
                    &["spiffe://e2e.example/frontend"],
                ),
                x509_output("backend", files.path()),
            ],
        );
        let expect = ["spiffe://e2e.example/backend"];
        let services = [outbound("frontend", plain, mtls, &expect)];
        let frontend = Agent::start(issuer, &tokens.1, &services);
        Self {
            backend,
            frontend,
            plain,
            files,
            _echo: echo,
        }
    }

    /// How many CAs the bundle in the backend's files has.
    fn authorities(&self) -> usize {
        read(&self.files.path().join("bundle.pem"))
            .matches("BEGIN CERTIFICATE")
            .count()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn x509(issuer: &Issuer, state: &str) -> Vec<String> {
    let keys = issuer.json(&["authority", "list"]);
    let of_state = |key: &&Value| key["use"] == "x509" && key["state"] == state;
    let keys = keys.as_array().unwrap().iter().filter(of_state);
    keys.map(|key| key["ca_pin"].as_str().unwrap().to_owned())
        .collect()
}

fn joins(issuer: &Issuer) -> usize {
    let audit = issuer.audit();
    audit
        .iter()
        .filter(|event| event["event"] == "bot.join")
        .count()
}

/// The guide's order for a key that others know.
#[test]
fn a_ca_is_withdrawn_after_everybody_has_renewed_and_nobody_notices() {
    let issuer = Issuer::start();
    let world = World::start(&issuer);
    ping(&mut connect(world.plain).unwrap()).unwrap();
    let withdraw = || {
        let keys = issuer.json(&["authority", "list"]);
        let retired = |key: &&Value| key["use"] == "x509" && key["state"] == "retired";
        let retired = keys.as_array().unwrap().iter().find(retired).unwrap();
        let key_id = retired["key_id"].as_str().unwrap();
        let output = issuer.command(&["authority", "withdraw", key_id]).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), told)
    };
    issuer.run(&["authority", "rotate", "--use", "x509", "--now"]);
    let (done, told) = withdraw();
    assert!(!done && told.contains("have not renewed"), "{told}");
    let joined = joins(&issuer);
    issuer.run(&["renew-now", "--within", "1s"]);
    eventually("nobody needs the old CA", || withdraw().0);
    eventually("the trust bundle has the new CA alone", || {
        world.authorities() == 1
    });
    // Both have it, and what they have is of it.
    for agent in [&world.backend, &world.frontend] {
        agent.renew();
        eventually("the agent is ready", || agent.is_ready());
    }
    eventually("a new connection is made", || {
        connect(world.plain).is_ok_and(|mut connection| ping(&mut connection).is_ok())
    });
    assert_eq!(joins(&issuer), joined, "nobody joined anew");
    issuer.verify_audit();
}

#[test]
fn a_rotation_by_order_drops_nothing_and_later_agents_join_under_either_pin() {
    let issuer = Issuer::start();
    let mut world = World::start(&issuer);
    let mut live: Vec<_> = (0..20).map(|_| connect(world.plain).unwrap()).collect();
    let late_token = issuer.register("late");
    let old_pin = issuer.ca_pin().to_owned();
    // This one will not hear of the new CA before it is in use.
    world.frontend.process().signal(Signal::STOP);

    issuer.run(&["authority", "rotate", "--use", "x509", "--now"]);
    eventually("the backend's files have both CAs", || {
        world.authorities() == 2
    });
    let before = read(&world.files.path().join("svid.pem"));
    issuer.run(&["renew-now"]);
    eventually("the backend's SVID is a new one", || {
        read(&world.files.path().join("svid.pem")) != before
    });
    world.frontend.process().signal(Signal::CONT);
    for stream in &mut live {
        ping(stream).unwrap();
    }
    // It stays open: a connection that ends is in the list of ended ones.
    let mut newest = None;
    eventually("new connections prove identities of the new CA", || {
        newest = connect(world.plain).ok();
        newest.is_some()
    });
    assert!(
        world.backend.connections().is_empty(),
        "{:?}",
        world.backend.connections()
    );

    // Restarted with what it has stored, an agent goes on.
    world.frontend.restart();
    world.frontend.wait();
    connect(world.plain).unwrap();

    let new_pin = x509(&issuer, "active").remove(0);
    assert_ne!(new_pin, old_pin);
    let newer_token = issuer.token("late", &[]);
    for (token, pin) in [(late_token, old_pin), (newer_token, new_pin)] {
        let files = tempfile::tempdir().unwrap();
        let services = [x509_output("late", files.path())];
        Agent::start_with_pin(&issuer, &token, &pin, &services).wait();
    }
    assert_eq!(joins(&issuer), 4);
}

#[test]
fn a_ca_reaches_its_end_and_nobody_notices() {
    let issuer = Issuer::start_with(&["--ca-ttl", "48s"]);
    let world = World::start(&issuer);
    let first = issuer.ca_pin().to_owned();
    let end = Instant::now() + Duration::from_secs(120);
    let (mut requests, mut most) = (0, 1);
    // Requests all the while, each on a connection of its own, until the first CA is gone.
    loop {
        connect(world.plain).unwrap_or_else(|error| panic!("request {requests}: {error}"));
        requests += 1;
        most = most.max(world.authorities());
        let there = ["prepared", "active", "retired"]
            .map(|state| x509(&issuer, state))
            .concat();
        if !there.contains(&first) {
            break;
        }
        assert!(Instant::now() < end, "{there:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(requests > 50, "{requests}");
    assert_eq!(most, 2, "the successor was not published");
    eventually("the first CA has left the backend's files", || {
        world.authorities() == 1
    });
    for _ in 0..20 {
        connect(world.plain).unwrap();
    }
    assert_eq!(joins(&issuer), 2);
    assert!(world.backend.is_ready() && world.frontend.is_ready());
    let gone = issuer.audit_event("the CA's end is recorded", |event| {
        event["event"] == "authority.remove" && event["fields"]["ca_pin"] == first.as_str()
    });
    assert_eq!(gone["fields"]["user"], "issuer");
}
