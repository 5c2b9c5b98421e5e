//! What becomes of what was written: when it expires, and when the agent ends.

use std::fs;

use e2e::{Agent, Issuer, eventually, x509_output};
use rustix::process::Signal;

use super::{output, ready};

#[test]
fn what_has_expired_is_removed_if_that_is_configured() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (keep, remove, jwt) = (
        home.path().join("keep"),
        home.path().join("remove"),
        home.path().join("jwt"),
    );
    let agent = Agent::start(
        &issuer,
        &token,
        &[
            output(
                "workload-identity-x509",
                "keep",
                &keep,
                "credential_ttl: 8s",
            ),
            output(
                "workload-identity-x509",
                "remove",
                &remove,
                "credential_ttl: 8s, on_expiry: remove",
            ),
            output(
                "workload-identity-jwt",
                "jwt",
                &jwt,
                "audiences: [a], credential_ttl: 8s, on_expiry: remove",
            ),
        ],
    );
    issuer.kill();
    eventually("what has expired is gone", || {
        !remove.join("svid_key.pem").exists() && !jwt.join("jwt_svid").exists()
    });
    eventually("and every output says so", || {
        ["keep", "remove", "jwt"].iter().all(|service| {
            let path = format!("/readyz/{service}");
            agent
                .get(&path)
                .is_some_and(|(status, body)| status == 503 && body.contains("expired"))
        })
    });
    assert!(keep.join("svid_key.pem").exists());
    assert!(fs::symlink_metadata(remove.join("..data")).is_err());
    issuer.restart();
    agent.wait();
    assert!(remove.join("svid_key.pem").exists() && jwt.join("jwt_svid").exists());
}

#[test]
fn nothing_is_left_at_the_end_if_that_is_wanted() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (wiped, kept) = (home.path().join("wiped"), home.path().join("kept"));
    let mut agent = Agent::start_with_environment(
        &issuer,
        &token,
        &[x509_output("app", &wiped)],
        &[("TBOT_WIPE_ON_EXIT", "true")],
    );
    fs::write(wiped.join("mine"), "mine").unwrap();
    // A reload is no end.
    let renamed = x509_output("app", &wiped).replace("app-files", "again");
    agent.write_services(&[renamed]);
    agent.process().signal(Signal::HUP);
    eventually("the successor is ready", || {
        ready(&agent, "again").is_some()
    });
    assert!(wiped.join("svid_key.pem").exists());
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait().success());
    let mut left: Vec<_> = fs::read_dir(&wiped)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["..lock", "mine"]);

    let token = issuer.token("app", &[]);
    let mut agent = Agent::start(&issuer, &token, &[x509_output("app", &kept)]);
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait().success());
    assert!(kept.join("svid_key.pem").exists());
}
