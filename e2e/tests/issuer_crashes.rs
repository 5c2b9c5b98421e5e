//! `kill -9` of the issuer at random moments under load, on both databases: whatever SVID an agent has is
//! on the audit trail, the trail is whole, and what is applied together is there together.

use std::{
    collections::HashSet,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use e2e::{IssueLoad, Issuer, Postgres};

const AGENTS: usize = 12;

/// Two resources that are applied together, in an order of their own each time.
struct Pair<'a>(&'a Issuer);

impl Pair<'_> {
    /// Begins to write both with this value.
    fn write(&self, value: usize) -> Child {
        let file: PathBuf = self.0.home().join("pair.yaml");
        let one = |name| {
            format!(
                "kind: workload_identity\nversion: v1\n\
                 metadata: {{ name: {name}, labels: {{ value: v{value} }} }}\n\
                 spec: {{ spiffe: {{ id: /{name} }} }}\n"
            )
        };
        std::fs::write(&file, format!("{}---\n{}", one("left"), one("right"))).unwrap();
        let mut apply = self.0.command(&["apply", "-f", file.to_str().unwrap()]);
        // It may well find nobody, or be cut off.
        apply
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn read(&self) -> [String; 2] {
        ["left", "right"].map(|name| {
            let found = self.0.json(&["get", &format!("workload_identity/{name}")]);
            found[0]["metadata"]["labels"]["value"]
                .as_str()
                .unwrap()
                .to_owned()
        })
    }
}

/// A moment that no run can foresee.
fn random_moment() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_millis(u64::from(now.subsec_nanos() % 300))
}

fn crash_again_and_again(mut issuer: Issuer, rounds: usize) {
    issuer.register("app");
    let load = IssueLoad::start(&issuer, AGENTS, &[]);
    assert!(Pair(&issuer).write(0).wait().unwrap().success());
    for round in 1..=rounds {
        load.wait_for_more(3 * AGENTS);
        let mut apply = Pair(&issuer).write(round);
        std::thread::sleep(random_moment());
        issuer.kill();
        apply.wait().unwrap();
        issuer.restart();
        issuer.verify_audit();
        let [left, right] = Pair(&issuer).read();
        assert_eq!(left, right, "half of what was applied together is there");
    }
    load.wait_for_more(AGENTS);
    let (errors, received) = load.stop();
    for kind in errors.keys() {
        // Connections end with the process, and nobody listens until the next one does.
        let expected = ["closed", "connect", "handshake", "reset", "timeout"];
        assert!(expected.contains(&kind.as_str()), "{errors:?}");
    }
    issuer.verify_audit();
    let recorded: HashSet<_> = issuer.issued("app").into_iter().collect();
    for serial in &received {
        assert!(
            recorded.contains(serial),
            "{serial} left and is not recorded"
        );
    }
    println!(
        "{} SVIDs received over {rounds} kills, {} recorded, failures seen: {errors:?}",
        received.len(),
        recorded.len()
    );
}

#[test]
fn no_svid_leaves_without_its_record_on_sqlite() {
    crash_again_and_again(Issuer::start(), 12);
}

#[test]
fn no_svid_leaves_without_its_record_on_postgresql() {
    let postgres = Postgres::start();
    let url = postgres.create_database("issuer");
    crash_again_and_again(Issuer::start_with(&["--database", &url]), 6);
}
