//! A file output that cannot be written says why, leaves what is there, is tried
//! again, and takes no other service with it.

#![allow(clippy::unwrap_used)]

use std::fs;

use e2e::{Agent, Issuer, eventually, x509_output};

#[test]
fn the_reason_is_told_and_removing_it_mends_it() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (good, bad) = (home.path().join("good"), home.path().join("bad"));
    fs::create_dir(&bad).unwrap();
    fs::write(bad.join("svid_key.pem"), "somebody else's").unwrap();
    let broken = x509_output("app", &bad).replace("app-files", "broken");
    let agent = Agent::start_without_waiting(&issuer, &token, &[x509_output("app", &good), broken]);
    eventually("one is ready, the other says why not", || {
        agent
            .get("/readyz/app-files")
            .is_some_and(|(status, _)| status == 200)
            && agent.get("/readyz/broken").is_some_and(|(status, body)| {
                status == 503 && body.contains("svid_key.pem") && body.contains("move it away")
            })
    });
    assert_eq!(
        fs::read_to_string(bad.join("svid_key.pem")).unwrap(),
        "somebody else's"
    );
    assert!(good.join("svid_key.pem").exists());
    assert!(!bad.join("svid.pem").exists());
    assert!(
        agent
            .metric("tbot_output_writes_total{service=\"broken\",result=\"failure\"}")
            .unwrap()
            >= 1.0
    );

    fs::remove_file(bad.join("svid_key.pem")).unwrap();
    agent.wait();
    assert_eq!(
        fs::read(bad.join("svid.pem")).unwrap(),
        fs::read(good.join("svid.pem")).unwrap(),
        "services with one selector share one identity"
    );
}
