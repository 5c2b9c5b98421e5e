//! Two issuers on one PostgreSQL: one authority, one trust bundle, one audit trail. One is killed under load:
//! agents go on with the other.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use e2e::{Agent, IssueLoad, Issuer, Postgres, eventually, x509_output};
use serde_json::Value;

/// Two issuers that share a database and a key file.
fn pair(postgres: &Postgres) -> (Issuer, Issuer) {
    let url = postgres.create_database("issuer");
    let first = Issuer::start_with(&["--database", &url]);
    let key = first.key_file();
    let key = key.to_str().unwrap();
    let second = Issuer::start_with(&["--database", &url, "--key-file", key]);
    assert_eq!(first.ca_pin(), second.ca_pin(), "one authority");
    (first, second)
}

/// The trust bundles that an agent keeps.
fn bundles(agent: &Agent) -> PathBuf {
    agent.path("storage/..data/bundle_map.json")
}

/// The sequence of the trust bundle in such a file.
fn sequence(bundles: &Path) -> u64 {
    let text = std::fs::read(bundles).unwrap();
    let map: Value = serde_json::from_slice(&text).unwrap();
    let bundle = &map["trust_domains"]["e2e.example"];
    bundle["spiffe_sequence"]
        .as_u64()
        .unwrap_or_else(|| panic!("{map}"))
}

#[test]
fn what_one_is_told_the_other_knows() {
    let postgres = Postgres::start();
    let (first, second) = pair(&postgres);
    let tokens = (first.register("app"), second.token("app", &[]));
    let services = |issuer: &Issuer| [x509_output("app", &issuer.home().join("out"))];
    // Each joins at the issuer that did not make its token.
    let one = Agent::start_at(&[&second], &tokens.0, &services(&first));
    let two = Agent::start_at(&[&first], &tokens.1, &services(&second));
    let before = sequence(&bundles(&one));
    assert_eq!(before, sequence(&bundles(&two)), "one trust bundle");

    first.run(&["authority", "rotate", "--use", "x509", "--now"]);
    eventually(
        "the agents of both have the same newer trust bundle",
        || {
            let (one, two) = (sequence(&bundles(&one)), sequence(&bundles(&two)));
            assert!(one >= before && two >= before, "{before}, {one}, {two}");
            one > before && one == two
        },
    );
    second.run(&["bot", "add", "later", "--roles", "app"]);
    eventually(
        "the first knows of the bot that the second was told of",
        || first.run(&["get", "bot", "-o", "json"]).contains("later"),
    );
    drop((one, two));
    assert_eq!(first.audit(), second.audit(), "one audit trail");
    first.verify_audit();
    second.verify_audit();
}

#[test]
fn agents_go_on_when_one_is_killed_under_load() {
    let postgres = Postgres::start();
    let (mut first, second) = pair(&postgres);
    let token = first.register("app");
    let out = first.home().join("out");
    let services = [x509_output("app", &out)];
    let agent = Agent::start_at(&[&first, &second], &token, &services);
    let fallback = second.address();
    let load = IssueLoad::start(&first, 8, &["--fallback", &fallback, "--timeout=5s"]);
    load.wait_for_more(50);

    // The agent never sees the sequence go back.
    let watching = Arc::new(AtomicBool::new(true));
    let (watch, watched) = (watching.clone(), bundles(&agent));
    let watcher = thread::spawn(move || {
        let mut newest = 0;
        while watch.load(Ordering::Relaxed) {
            let now = sequence(&watched);
            assert!(now >= newest, "the sequence went back: {newest} to {now}");
            newest = now;
        }
        newest
    });
    let begun = sequence(&bundles(&agent));

    let svid = |out: &Path| std::fs::read(out.join("svid.pem")).unwrap();
    let before = svid(&out);
    first.kill();
    let killed = Instant::now();
    load.wait_for_more(8);
    println!("the load went on after {:?}", killed.elapsed());
    agent.renew();
    eventually("the agent has an SVID of the other issuer", || {
        svid(&out) != before
    });
    println!("the agent went on after {:?}", killed.elapsed());
    assert!(agent.is_ready());
    second.run(&["authority", "rotate", "--use", "x509", "--now"]);
    eventually("the agent has the newer trust bundle", || {
        sequence(&bundles(&agent)) > begun
    });

    // The one that was killed comes back, and the other goes.
    first.restart();
    let mut second = second;
    let rotated = sequence(&bundles(&agent));
    second.kill();
    load.wait_for_more(8);
    first.run(&["authority", "rotate", "--use", "x509", "--now"]);
    eventually("the agent follows the first again", || {
        sequence(&bundles(&agent)) > rotated
    });
    watching.store(false, Ordering::Relaxed);
    assert!(watcher.join().unwrap() > begun);

    let (errors, received) = load.stop();
    println!("{} SVIDs, failures seen: {errors:?}", received.len());
    for kind in errors.keys() {
        let expected = [
            "closed",
            "connect",
            "handshake",
            "reset",
            "timeout",
            "unavailable",
        ];
        assert!(expected.contains(&kind.as_str()), "{errors:?}");
    }
    first.verify_audit();
    let recorded: HashSet<_> = first.issued("app").into_iter().collect();
    for serial in &received {
        assert!(
            recorded.contains(serial),
            "{serial} left and is not recorded"
        );
    }
}
