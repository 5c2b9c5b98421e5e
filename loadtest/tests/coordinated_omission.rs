//! A target that stalls once must show in the latencies that are measured from when each request
//! was due, for all requests that fell due meanwhile; the uncorrected figures hide it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "support/server.rs"]
#[allow(dead_code)]
mod server;

use std::time::Duration;

use server::{Behaviour, Server};

#[test]
fn one_stall_shows_in_corrected_latencies_only() {
    // One byte a request: the stall comes with the 600th of about 1,500 requests.
    let stall = Some((600, Duration::from_millis(200)));
    let server = Server::start(Behaviour {
        stall,
        ..Behaviour::default()
    });
    let options = [
        "--rate=500",
        "--duration=3s",
        "--warmup=0s",
        "--connections=1",
        "--size=1",
    ];
    let report = server.load("rr", &options);
    assert_eq!(report["failed"], 0);
    let done = report["succeeded"].as_u64().unwrap();
    assert_eq!(done, 1_500, "the schedule is kept whatever the target does");

    // 100 of 1,500 requests fell due during the stall: 6.7 %.
    let corrected = &report["latency_corrected_us"];
    let naive = &report["latency_uncorrected_us"];
    let at = |latency: &serde_json::Value, quantile: &str| latency[quantile].as_f64().unwrap();
    assert!(at(corrected, "p99_9") > 180_000.0, "{report:#}");
    assert!(at(corrected, "p99") > 120_000.0, "{report:#}");
    assert!(at(naive, "p99_9") < 100_000.0, "{report:#}");
    assert!(at(naive, "max") > 180_000.0, "{report:#}");
}

#[test]
fn requests_that_could_never_be_sent_are_failures() {
    // The second request stalls for longer than the run and its longest operation.
    let stall = Some((1, Duration::from_secs(30)));
    let server = Server::start(Behaviour {
        stall,
        ..Behaviour::default()
    });
    let tls = server.tls_options();
    let mut options: Vec<&str> = tls.iter().map(String::as_str).collect();
    options.extend([
        "--rate=100",
        "--duration=1s",
        "--warmup=0s",
        "--connections=1",
    ]);
    options.extend(["--size=1", "--timeout=2s", "--max-error-rate=1"]);
    let report = server::report(&server::run("rr", &options));
    assert_eq!(report["errors"]["timeout"]["count"], 1);
    let accounted = report["succeeded"].as_u64().unwrap() + report["failed"].as_u64().unwrap();
    assert_eq!(accounted, 100, "{report:#}");
}

#[test]
fn a_closed_loop_claims_no_correction() {
    let server = Server::start(Behaviour::default());
    let report = server.load("rr", &["--count=20", "--warmup=0s"]);
    assert!(report.get("latency_corrected_us").is_none());
    assert!(report["latency_uncorrected_us"]["p50"].as_f64().unwrap() > 0.0);
}
