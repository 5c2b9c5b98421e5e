//! CPU time of named processes, as the kernel accounts for it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "support/server.rs"]
#[allow(dead_code)]
mod server;

use std::process::{Child, Command, Stdio};

use server::{Behaviour, Server};

/// A shell command, ended when dropped.
struct Process(Child);

impl Process {
    fn sh(script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        Self(
            command
                .args(["-c", script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child of the shell notices that its standard input has ended.
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const WINDOW: [&str; 5] = [
    "--rate=50",
    "--duration=2s",
    "--warmup=200ms",
    "--connections=1",
    "--size=1",
];

fn cpu_seconds(server: &Server, options: &[&str]) -> f64 {
    let options: Vec<&str> = WINDOW.iter().chain(options).copied().collect();
    let report = server.load("rr", &options);
    let cpu = &report["cpu"][0];
    let per_operation = cpu["us_per_operation"].as_f64().unwrap();
    let seconds = cpu["seconds"].as_f64().unwrap();
    let operations = seconds * 1e6 / per_operation;
    assert!(
        seconds == 0.0 || (operations - 100.0).abs() < 5.0,
        "{report:#}"
    );
    seconds
}

#[test]
fn a_busy_process_is_seen_and_a_sleeping_one_is_not() {
    let server = Server::start(Behaviour::default());
    let busy = Process::sh("while :; do :; done");
    // Two seconds of a processor, less what others take on a shared machine.
    let used = cpu_seconds(&server, &["--pid", &busy.pid()]);
    assert!((0.2..=2.2).contains(&used), "{used}");
    drop(busy);
    let sleeping = Process::sh("read line");
    assert_eq!(cpu_seconds(&server, &["--pid", &sleeping.pid()]), 0.0);
}

#[test]
fn descendants_count_if_asked() {
    let server = Server::start(Behaviour::default());
    // The busy child is ended by its parent when that one's standard input ends.
    let parent = Process::sh("(while :; do :; done) & busy=$!; read line; kill $busy");
    let pid = parent.pid();
    assert!(cpu_seconds(&server, &["--pid", &pid]) < 0.1);
    assert!(cpu_seconds(&server, &["--pid", &pid, "--children"]) > 0.2);
    let mut parent = parent;
    drop(parent.0.stdin.take());
    parent.0.wait().unwrap();
}

#[test]
fn a_process_that_is_not_there_is_named() {
    let server = Server::start(Behaviour::default());
    let target = server.address.to_string();
    let output = server::run("rr", &["--target", &target, "--process", "no-such-name"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-name"));
}
