//! What a reload may not do: leave a connection to a policy that no longer holds,
//! cut one that nothing speaks against, call ourselves another process, or say that
//! all is well when it is not.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use e2e::{Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound, ping};
use rustix::process::Signal;

const APP: &str = "spiffe://e2e.example/app";
const OTHER: &str = "spiffe://e2e.example/other";

struct Scene {
    agent: Agent,
    echo: EchoServer,
    mtls: u16,
    plain: u16,
    issuer: Issuer,
}

impl Scene {
    fn start() -> Self {
        let issuer = Issuer::start();
        let token = issuer.register("app");
        let echo = EchoServer::start();
        let (mtls, plain) = (free_port(), free_port());
        let services = [
            inbound("app", mtls, &echo.address(), &[APP]),
            outbound("app", plain, mtls, &[APP]),
        ];
        Self {
            agent: Agent::start(&issuer, &token, &services),
            echo,
            mtls,
            plain,
            issuer,
        }
    }

    fn inbound(&self, allow: &str) -> String {
        inbound("app", self.mtls, &self.echo.address(), &[allow])
    }

    fn outbound(&self) -> String {
        outbound("app", self.plain, self.mtls, &[APP])
    }

    fn count(&self, result: &str) -> f64 {
        let metric = format!("tbot_config_reloads_total{{result=\"{result}\"}}");
        self.agent.metric(&metric).unwrap()
    }

    /// Begins to reload these services with this `shutdown.grace`.
    fn begin_reload(&mut self, services: &[String], grace: &str) {
        self.agent.write_services(services);
        let file = self.agent.path("agent.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let with_grace = format!("shutdown: {{ grace: {grace} }}\nservices:\n");
        fs::write(&file, text.replace("services:\n", &with_grace)).unwrap();
        self.agent.process().signal(Signal::HUP);
    }

    #[track_caller]
    fn reload(&mut self, services: &[String], grace: &str, result: &str) {
        let before = self.count(result);
        self.begin_reload(services, grace);
        eventually(&format!("a reload with {result}"), || {
            self.count(result) > before
        });
    }
}

/// A tightened policy reaches what lives, whatever else the same reload changes.
#[track_caller]
fn is_cut_at_once(change: impl Fn(String) -> String) {
    let mut scene = Scene::start();
    let mut live = connect(scene.plain).unwrap();
    let services = [change(scene.inbound(OTHER)), scene.outbound()];
    scene.reload(&services, "10m", "success");
    eventually("the live connection is cut", || ping(&mut live).is_err());
    scene
        .agent
        .connection("why it ended", |r| r["reason"] == "policy_changed");
}

#[test]
fn a_tightened_policy_holds_for_a_service_that_is_renamed() {
    is_cut_at_once(|service| service.replace("app-in", "renamed"));
}

#[test]
fn a_tightened_policy_holds_for_a_service_that_moves() {
    let mtls = free_port();
    is_cut_at_once(move |service| {
        let (head, tail) = service.split_once("listen: \"127.0.0.1:").unwrap();
        let (_, tail) = tail.split_once('"').unwrap();
        format!("{head}listen: \"127.0.0.1:{mtls}\"{tail}")
    });
}

#[test]
fn a_tightened_policy_holds_with_another_life_of_the_identity() {
    is_cut_at_once(|service| format!("{service}, credential_ttl: 2h"));
}

#[test]
fn a_tightened_policy_holds_for_what_drains_since_an_earlier_reload() {
    let mut scene = Scene::start();
    let mut live = connect(scene.plain).unwrap();
    let moved = |allow| inbound("app", free_port(), &scene.echo.address(), &[allow]);
    let (moved, tightened) = (moved(APP), moved(OTHER));
    scene.reload(&[moved, scene.outbound()], "10m", "success");
    ping(&mut live).unwrap();
    scene.reload(&[tightened, scene.outbound()], "10m", "success");
    eventually("the live connection is cut", || ping(&mut live).is_err());
}

#[test]
fn another_life_of_the_identity_cuts_nothing_and_is_asked_for_soon() {
    let mut scene = Scene::start();
    let mut live = connect(scene.plain).unwrap();
    // One of two services that shared an identity goes on alone.
    let services = [
        format!("{}, credential_ttl: 2h", scene.inbound(APP)),
        scene.outbound(),
    ];
    let expiry = |service: &str| {
        let metric = format!("tbot_svid_expiry_timestamp_seconds{{service=\"{service}\"}}");
        scene.agent.metric(&metric).unwrap()
    };
    let (inbound, outbound) = (expiry("app-in"), expiry("app-out"));
    assert_eq!(inbound, outbound);
    scene.reload(&services, "0s", "success");
    let expiry = |service: &str| {
        let metric = format!("tbot_svid_expiry_timestamp_seconds{{service=\"{service}\"}}");
        scene.agent.metric(&metric).unwrap()
    };
    eventually("an SVID of the new life", || {
        expiry("app-in") > inbound + 1800.0
    });
    assert_eq!(expiry("app-out"), outbound);
    ping(&mut live).unwrap();
    connect(scene.plain).unwrap();
    assert!(scene.agent.connections().is_empty(), "none has ended");
    assert!(!scene.agent.log().contains("stopping"));
}

#[test]
fn sigterm_is_bounded_by_the_grace_of_now() {
    let mut scene = Scene::start();
    let plain = free_port();
    // The client's side is another process: only the drain of the server's can end it.
    let _client = Agent::start(
        &scene.issuer,
        &scene.issuer.token("app", &[]),
        &[outbound("app", plain, scene.mtls, &[APP])],
    );
    let mut live = connect(plain).unwrap();
    let moved = [inbound("app", free_port(), &scene.echo.address(), &[APP])];
    scene.reload(&moved, "10m", "success");
    ping(&mut live).unwrap();
    // Nothing but the grace changes: the drain that has begun would go on for 10 minutes.
    scene.reload(&moved, "1s", "success");
    ping(&mut live).unwrap();
    scene.agent.process().signal(Signal::TERM);
    assert!(scene.agent.process().wait().success());
    scene
        .agent
        .connection("why it ended", |r| r["reason"] == "drained");
}

#[test]
fn a_service_that_is_gone_has_no_gauges() {
    let mut scene = Scene::start();
    scene.reload(&[scene.outbound()], "1s", "success");
    let (_, metrics) = scene.agent.get("/metrics").unwrap();
    for name in ["tbot_service_ready", "tbot_svid_expiry_timestamp_seconds"] {
        assert!(
            metrics.contains(&format!("# TYPE {name} gauge")),
            "{metrics}"
        );
        assert!(metrics.contains(&format!("{name}{{service=\"app-out\"}} 1")));
        assert!(!metrics.contains(&format!("{name}{{service=\"app-in\"")));
    }
    assert!(!metrics.contains("NaN"), "{metrics}");
}

#[test]
fn sigterm_is_heard_during_a_reload() {
    let mut scene = Scene::start();
    // Another address of this port is taken, so that the widened listener waits in vain for it.
    let Ok(_taken) = TcpListener::bind(("127.0.0.2", scene.mtls)) else {
        return;
    };
    let wide = scene
        .inbound(APP)
        .replace("listen: \"127.0.0.1:", "listen: \"0.0.0.0:");
    scene.begin_reload(&[wide, scene.outbound()], "1s");
    eventually("the old listener has stopped", || {
        TcpStream::connect(("127.0.0.1", scene.mtls)).is_err()
    });
    let told = Instant::now();
    scene.agent.process().signal(Signal::TERM);
    assert!(scene.agent.process().wait().success());
    assert!(
        told.elapsed() < Duration::from_secs(7),
        "it waited for the reload: {:?}",
        told.elapsed()
    );
}

#[test]
fn a_listener_is_widened_and_narrowed() {
    let mut scene = Scene::start();
    let mut live = connect(scene.plain).unwrap();
    let narrow = scene.inbound(APP);
    let wide = narrow.replace("listen: \"127.0.0.1:", "listen: \"0.0.0.0:");
    let named = narrow.replace("listen: \"127.0.0.1:", "listen: \"localhost:");
    for inbound in [wide, narrow, named] {
        scene.reload(&[inbound, scene.outbound()], "10m", "success");
        ping(&mut live).unwrap();
        connect(scene.plain).unwrap();
    }
    assert!(scene.agent.is_ready());
}

#[test]
fn a_service_that_does_not_start_is_a_failed_reload() {
    let mut scene = Scene::start();
    let taken = TcpListener::bind(("127.0.0.2", scene.mtls)).unwrap();
    let wide = scene
        .inbound(APP)
        .replace("listen: \"127.0.0.1:", "listen: \"0.0.0.0:");
    let services = [wide, scene.outbound()];
    scene.reload(&services, "1s", "failure");
    assert_eq!(scene.count("success"), 0.0);
    assert!(scene.agent.log().contains("configuration reloaded in part"));
    let (status, body) = scene.agent.get("/readyz/app-in").unwrap();
    assert!(status == 503 && body.contains("in use"), "{body}");
    // A service that never ran and is no longer wanted is no longer waited for.
    let another = scene.inbound(APP).replace("app-in", "another");
    scene.reload(&[another, scene.outbound()], "1s", "success");
    eventually("the others are ready", || scene.agent.is_ready());
    drop(taken);
    scene.reload(&services, "1s", "success");
    eventually("all is ready", || scene.agent.is_ready());
    connect(scene.plain).unwrap();
}

#[test]
fn what_waits_for_the_next_start_is_said_at_each_reload() {
    let mut scene = Scene::start();
    let services = [scene.inbound(APP), scene.outbound()];
    let file = scene.agent.path("agent.yaml");
    scene.agent.write_services(&services);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/storage }", "/elsewhere }")).unwrap();
    for round in 1..=2 {
        scene.agent.process().signal(Signal::HUP);
        eventually("the reload", || scene.count("success") >= f64::from(round));
    }
    let log = scene.agent.log();
    let warnings = log.matches("takes effect at the next start").count();
    assert_eq!(warnings, 2, "{log}");
}
