//! `loadtest issue` against a real issuer: what it reports is what the audit trail holds.

use std::collections::BTreeSet;

use e2e::{IssueLoad, Issuer, load, report};
use serde_json::Value;

fn sorted(mut serials: Vec<String>) -> Vec<String> {
    serials.sort();
    serials
}

fn events(issuer: &Issuer, event: &str, success: bool) -> Vec<Value> {
    let mut events = issuer.audit();
    events.retain(|e| e["event"] == event && e["success"] == success);
    events
}

#[test]
fn every_svid_that_it_received_is_on_the_audit_trail_and_no_other() {
    let issuer = Issuer::start();
    issuer.register("app");
    let file = issuer.home().join("issued");
    let pid = issuer.pid().to_string();
    let options = [
        "--workload-identity=app",
        "--connections=4",
        "--count=50",
        "--batch=3",
        "--pid",
        &pid,
        "--issued",
        file.to_str().unwrap(),
    ];
    let report = report(&load(&issuer, &options));
    assert_eq!(report["mode"], "issue");
    assert_eq!(report["succeeded"], 50);
    assert_eq!(report["svids"], 150);
    assert_eq!(report["failed"], 0);
    assert_eq!(report["tls"]["version"], "TLSv1_3");
    assert!(report["cpu"][0]["us_per_svid"].as_f64().unwrap() > 0.0);
    let received = std::fs::read_to_string(&file).unwrap();
    let received: Vec<_> = received.lines().map(str::to_owned).collect();
    assert_eq!(received.len(), 150);
    assert_eq!(sorted(received), sorted(issuer.issued("app")));
    let instances: BTreeSet<_> = events(&issuer, "bot.join", true)
        .iter()
        .map(|e| e["fields"]["bot_instance_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(instances.len(), 4, "each agent is an instance of its own");
}

#[test]
fn at_a_fixed_rate_latencies_run_from_when_calls_were_due() {
    let issuer = Issuer::start();
    issuer.register("app");
    let options = [
        "--workload-identity=app",
        "--connections=2",
        "--rate=50",
        "--duration=2s",
    ];
    let report = report(&load(&issuer, &options));
    assert_eq!(report["succeeded"], 100);
    assert_eq!(issuer.issued("app").len(), 100);
    let p99 = |which: &str| report[which]["p99"].as_f64().unwrap();
    assert!(p99("latency_corrected_us") >= p99("latency_uncorrected_us"));
}

#[test]
fn identities_are_kept_for_the_next_run() {
    let issuer = Issuer::start();
    issuer.register("app");
    let options = ["--workload-identity=app", "--connections=2", "--count=4"];
    for _ in 0..2 {
        assert_eq!(report(&load(&issuer, &options))["succeeded"], 4);
    }
    assert_eq!(events(&issuer, "bot.join", true).len(), 2);
}

#[test]
fn refusals_are_counted_with_the_first_ones_words() {
    let issuer = Issuer::start();
    issuer.register("app");
    let output = load(
        &issuer,
        &["--workload-identity=other", "--connections=1", "--count=3"],
    );
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"]["refused"]["count"], 3);
    assert_eq!(report["svids"], 0);
    assert_eq!(events(&issuer, "spiffe.svid.issued", false).len(), 3);
}

#[test]
fn a_run_that_is_stopped_reports_what_it_has_done() {
    let issuer = Issuer::start();
    issuer.register("app");
    for options in [&[][..], &["--rate=100"][..]] {
        let before = issuer.issued("app").len();
        let load = IssueLoad::start(&issuer, 2, options);
        load.wait_for_more(5);
        let (errors, received) = load.stop();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(issuer.issued("app").len(), before + received.len());
    }
}
