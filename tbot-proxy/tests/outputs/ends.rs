//! What becomes of what was written: when it expires, and when the agent ends.

use std::{fs, time::SystemTime};

use e2e::{Agent, Issuer, eventually, x509_output};
use identity::Leaf;
use rustix::process::Signal;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

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

#[test]
fn what_an_earlier_process_left_is_removed_when_it_expires_also_without_an_issuer() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name);
    let password = place("password");
    fs::write(&password, "changeit").unwrap();
    let keystores = format!(
        "formats: [pkcs12], keystore_password: {{ file: {} }}",
        password.display()
    );
    let x509 = |name: &str, more: &str| {
        let more = format!("credential_ttl: 20s, {more}");
        output("workload-identity-x509", name, &place(name), &more)
    };
    let mut agent = Agent::start(
        &issuer,
        &token,
        &[
            x509("keep", ""),
            x509("remove", "on_expiry: remove"),
            x509("java", &format!("on_expiry: remove, {keystores}")),
            output(
                "workload-identity-jwt",
                "jwt",
                &place("jwt"),
                "audiences: [a], credential_ttl: 20s, on_expiry: remove",
            ),
            output(
                "spiffe-bundle-map",
                "bundles",
                &place("bundles"),
                "on_expiry: remove",
            ),
        ],
    );
    issuer.kill();
    let leaf = fs::read(place("remove").join("svid.pem")).unwrap();
    let leaf = Leaf::parse(&CertificateDer::from_pem_slice(&leaf).unwrap()).unwrap();
    agent.restart();
    eventually("it is up again, and waits for the issuer", || {
        agent
            .get("/readyz")
            .is_some_and(|(status, _)| status == 503)
    });
    let files = [
        place("remove").join("svid_key.pem"),
        place("java").join("svid.p12"),
        place("jwt").join("jwt_svid"),
    ];
    eventually("what has expired is gone", || {
        !files.iter().any(|file| file.exists())
    });
    assert!(SystemTime::now() >= leaf.not_after(), "it had not expired");
    assert!(place("keep").join("svid_key.pem").exists());
    assert!(place("bundles").join("bundle_map.json").exists());
    assert!(fs::symlink_metadata(place("remove").join("..data")).is_err());
}
