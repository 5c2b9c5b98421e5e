//! Reloads that move things: an address, a name, an identity. What is not named
//! is not touched, live connections stay, and what cannot be done changes nothing.

#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};

use e2e::{Agent, EchoServer, Issuer, connect, eventually, free_port, inbound, outbound, ping};
use rustix::process::Signal;

const OWN: [&str; 1] = ["spiffe://e2e.example/app"];

struct Scene {
    agent: Agent,
    echo: EchoServer,
    plain: u16,
    reloads: f64,
    _issuer: Issuer,
}

impl Scene {
    fn start(mtls: u16) -> Self {
        let issuer = Issuer::start();
        let token = issuer.register("app");
        let echo = EchoServer::start();
        let plain = free_port();
        let services = services(&echo, mtls, plain);
        Self {
            agent: Agent::start(&issuer, &token, &services),
            echo,
            plain,
            reloads: 0.0,
            _issuer: issuer,
        }
    }

    /// Reloads these services and waits for the outcome.
    #[track_caller]
    fn reload(&mut self, services: &[String], result: &str) {
        self.agent.write_services(services);
        self.agent.process().signal(Signal::HUP);
        let metric = format!("tbot_config_reloads_total{{result=\"{result}\"}}");
        let before = if result == "success" {
            self.reloads
        } else {
            0.0
        };
        eventually(&format!("a reload with {result}"), || {
            self.agent.metric(&metric).unwrap() > before
        });
        if result == "success" {
            self.reloads += 1.0;
        }
    }
}

fn services(echo: &EchoServer, mtls: u16, plain: u16) -> [String; 2] {
    [
        inbound("app", mtls, &echo.address(), &OWN),
        outbound("app", plain, mtls, &OWN),
    ]
}

#[test]
fn a_listener_moves_and_live_connections_stay() {
    let (mtls, other) = (free_port(), free_port());
    let mut scene = Scene::start(mtls);
    let mut live = connect(scene.plain).unwrap();
    let moved = services(&scene.echo, other, scene.plain);
    scene.reload(&moved, "success");
    eventually("the old address is closed", || {
        TcpStream::connect(("127.0.0.1", mtls)).is_err()
    });
    ping(&mut live).unwrap();
    connect(scene.plain).unwrap();
    assert!(scene.agent.is_ready());
}

#[test]
fn a_service_is_renamed_on_its_address() {
    let mtls = free_port();
    let mut scene = Scene::start(mtls);
    let mut live = connect(scene.plain).unwrap();
    let [inbound, outbound] = services(&scene.echo, mtls, scene.plain);
    let renamed = [inbound.replace("name: app-in", "name: renamed"), outbound];
    scene.reload(&renamed, "success");
    ping(&mut live).unwrap();
    connect(scene.plain).unwrap();
    let (_, readiness) = scene.agent.get("/readyz").unwrap();
    assert!(
        readiness.contains("renamed") && !readiness.contains("app-in"),
        "{readiness}"
    );
}

#[test]
fn another_life_of_the_identity_interrupts_nothing_even_without_the_issuer() {
    let mtls = free_port();
    let mut scene = Scene::start(mtls);
    let mut live = connect(scene.plain).unwrap();
    scene._issuer.kill();
    let [inbound, outbound] = services(&scene.echo, mtls, scene.plain);
    let longer = [format!("{inbound}, credential_ttl: 2h"), outbound];
    scene.reload(&longer, "success");
    assert!(scene.agent.is_ready(), "{:?}", scene.agent.get("/readyz"));
    ping(&mut live).unwrap();
    connect(scene.plain).unwrap();
}

#[test]
fn an_address_in_use_changes_nothing() {
    let mtls = free_port();
    let mut scene = Scene::start(mtls);
    let mut live = connect(scene.plain).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let [_, outbound] = services(&scene.echo, mtls, scene.plain);
    let more = inbound("app", port, &scene.echo.address(), &OWN).replace("app-in", "more");
    let free = inbound("app", free_port(), &scene.echo.address(), &OWN).replace("app-in", "free");
    // `app-in` is gone from the file, but stays as the whole does not come about.
    scene.reload(&[outbound, free, more], "failure");
    let log = scene.agent.log();
    assert!(
        log.contains(&port.to_string()) && log.contains("in use"),
        "{log}"
    );
    ping(&mut live).unwrap();
    connect(scene.plain).unwrap();
    let (status, readiness) = scene.agent.get("/readyz").unwrap();
    assert_eq!(status, 200);
    assert!(
        readiness.contains("app-in") && !readiness.contains("free"),
        "{readiness}"
    );
}
