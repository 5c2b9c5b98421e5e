//! Nobody else writes where an output writes: not the storage of the bot identity,
//! however its path is spelled, not another agent, and not the output that it takes
//! over from.

#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::symlink, path::Path};

use e2e::{Agent, Issuer, eventually, x509_output};
use rustix::process::Signal;

#[track_caller]
fn is_not_ready(agent: &Agent, service: &str, why: &str) {
    eventually(&format!("{service} says: {why}"), || {
        agent
            .get(&format!("/readyz/{service}"))
            .is_some_and(|(status, body)| status == 503 && body.contains(why))
    });
}

#[test]
fn the_storage_of_the_bot_identity_is_refused_however_it_is_spelled() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(
        &issuer,
        &token,
        &[x509_output("app", &home.path().join("out"))],
    );
    let storage = agent.path("storage");
    let link = home.path().join("link");
    symlink(&storage, &link).unwrap();
    fs::create_dir(agent.path("x")).unwrap();
    let output = |name: &str, path: &Path| x509_output("app", path).replace("app-files", name);
    agent.write_services(&[
        output("dots", &agent.path("x/../storage")),
        output("link", &link),
        x509_output("app", &home.path().join("out")),
    ]);
    agent.process().signal(Signal::HUP);
    for service in ["dots", "link"] {
        is_not_ready(&agent, service, "the storage of the bot identity");
    }
    assert_eq!(agent.get("/readyz/app-files").unwrap().0, 200);
    assert!(storage.join("..data/bot.pem").exists());
    agent.restart();
    eventually("the bot identity is still there", || {
        agent
            .get("/readyz/app-files")
            .is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_second_agent_on_the_same_directory_says_so_and_takes_over_when_it_is_free() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let services = [x509_output("app", &home.path().join("out"))];
    let mut first = Agent::start(&issuer, &token, &services);
    let written = fs::read(home.path().join("out/svid.pem")).unwrap();
    let second = Agent::start_without_waiting(&issuer, &issuer.token("app", &[]), &services);
    is_not_ready(&second, "app-files", "another tbot-proxy writes to it");
    assert_eq!(fs::read(home.path().join("out/svid.pem")).unwrap(), written);
    first.process().kill();
    second.wait();
    assert_ne!(fs::read(home.path().join("out/svid.pem")).unwrap(), written);
}

#[test]
fn an_output_hands_over_to_its_successor_without_a_failure() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let mut agent = Agent::start(&issuer, &token, &[x509_output("app", &out)]);
    for round in 0..10 {
        let name = format!("round-{round}");
        agent.write_services(&[x509_output("app", &out).replace("app-files", &name)]);
        agent.renew();
        agent.process().signal(Signal::HUP);
        eventually("the successor has written", || {
            agent
                .get(&format!("/readyz/{name}"))
                .is_some_and(|(status, _)| status == 200)
        });
        assert!(out.join("svid.pem").exists());
    }
    let log = agent.log();
    assert!(!log.contains("output not written"), "{log}");
}
