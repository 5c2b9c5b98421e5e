//! Time of a whole attestation by `unix` with a warm cache of hashes, beside one bare
//! reading of `/proc/PID/status`. The goal of issue 4 is a median under 200 µs.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use attest::{Attestors, Config, Process};

const ROUNDS: usize = 5_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let process = Process::of_pid(child.id()).unwrap();
    let attestors = Attestors::new(Config::default());
    runtime.block_on(async {
        let warm = attestors.attest(&process).await;
        assert!(warm.failures.is_empty(), "{:?}", warm.failures);
        let mut whole = Vec::with_capacity(ROUNDS);
        let mut bare = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            attestors.attest(&process).await;
            whole.push(start.elapsed());
            let start = Instant::now();
            fs::read(format!("/proc/{}/status", child.id())).unwrap();
            bare.push(start.elapsed());
        }
        let (whole, bare) = (median(whole), median(bare));
        println!(
            "unix attestation, warm: median {whole:?}; one /proc/PID/status: {bare:?}; ratio {:.1}",
            whole.as_secs_f64() / bare.as_secs_f64()
        );
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
