//! Two issuers on one PostgreSQL: one authority, one trust bundle, one audit trail. One is killed under load:
//! agents go on with the other.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use e2e::{Agent, IssueLoad, Issuer, Postgres, eventually, x509_output};

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

fn sequence(issuer: &Issuer) -> u64 {
    let status = issuer.json(&["status"]);
    status["bundle_sequence"]
        .as_u64()
        .unwrap_or_else(|| panic!("{status}"))
}

#[test]
fn what_one_is_told_the_other_knows() {
    let postgres = Postgres::start();
    let (first, second) = pair(&postgres);
    let token = first.register("app");
    let out = first.home().join("out");
    // Joins at the one that did not make the token, for an identity that the other was told of.
    let agent = Agent::start_at(&[&second], &token, &[x509_output("app", &out)]);
    assert!(agent.is_ready());
    let before = (sequence(&first), sequence(&second));
    assert_eq!(before.0, before.1, "one trust bundle");

    first.run(&["authority", "rotate", "--use", "x509", "--now"]);
    eventually("the other has the successor too", || {
        let now = sequence(&second);
        assert!(
            now >= before.1,
            "the sequence went back: {} to {now}",
            before.1
        );
        now > before.1 && now == sequence(&first)
    });
    second.run(&["bot", "add", "later", "--roles", "app"]);
    eventually("and the first knows of the later bot", || {
        first.run(&["get", "bot", "-o", "json"]).contains("later")
    });
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
    let load = IssueLoad::start(&first, 8, &["--fallback", &fallback, "--timeout=2s"]);
    load.wait_for_more(50);

    // Whoever asks the second meanwhile never sees the sequence go back.
    let watching = Arc::new(AtomicBool::new(true));
    let watch = watching.clone();
    let second = Arc::new(second);
    let watched = second.clone();
    let watcher = thread::spawn(move || {
        let mut newest = 0;
        while watch.load(Ordering::Relaxed) {
            let now = sequence(&watched);
            assert!(now >= newest, "the sequence went back: {newest} to {now}");
            newest = now;
        }
        newest
    });

    let svid = |out: &Path| std::fs::read(out.join("svid.pem")).unwrap();
    let before = (svid(&out), load.received().len());
    first.kill();
    let killed = Instant::now();
    load.wait_for_more(8);
    println!("the load went on after {:?}", killed.elapsed());
    agent.renew();
    eventually("the agent has an SVID of the other issuer", || {
        svid(&out) != before.0
    });
    println!("the agent went on after {:?}", killed.elapsed());
    assert!(agent.is_ready());
    second.run(&["authority", "rotate", "--use", "x509", "--now"]);

    // The one that was killed comes back, and has missed nothing.
    first.restart();
    eventually("both have the same trust bundle", || {
        sequence(&first) == sequence(&second)
    });
    watching.store(false, Ordering::Relaxed);
    let newest = watcher.join().unwrap();
    assert!(sequence(&first) >= newest);

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
    assert_eq!(first.audit(), second.audit(), "one audit trail");
    let recorded: HashSet<_> = second.issued("app").into_iter().collect();
    for serial in &received {
        assert!(
            recorded.contains(serial),
            "{serial} left and is not recorded"
        );
    }
}
