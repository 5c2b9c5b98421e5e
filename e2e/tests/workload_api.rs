//! The Workload API through what happens to issuers and clocks.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use e2e::{Agent, Issuer, Process, binary, eventually, run};
use serde_json::Value;

/// A Workload API service for the identity `app`.
fn api(home: &Path, more: &str) -> String {
    format!(
        "type: workload-identity-api, name: api, selector: {{ name: app }}, listen: \"{}\"{more}",
        socket(home)
    )
}

fn socket(home: &Path) -> String {
    format!("unix://{}/wl.sock", home.display())
}

/// What `tbot-proxy svid watch` prints.
struct Watcher {
    child: Child,
    lines: Receiver<Value>,
}

impl Watcher {
    #[track_caller]
    fn start(home: &Path) -> Self {
        let mut child = Command::new(binary("tbot-proxy"))
            .args(["svid", "watch", "-o", "json", "--socket", &socket(home)])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tbot-proxy");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("a line of JSON");
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Serial number of the next SVID.
    #[track_caller]
    fn next(&self) -> String {
        let line = self
            .lines
            .recv_timeout(Duration::from_secs(60))
            .expect("an SVID within a minute");
        line["svids"][0]["serial"]
            .as_str()
            .expect("a serial number")
            .to_owned()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_some()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The serial number that a new client gets.
fn fetched(home: &Path) -> Option<String> {
    let output = Command::new(binary("tbot-proxy"))
        .args(["svid", "list", "-o", "json", "--socket", &socket(home)])
        .output()
        .expect("tbot-proxy");
    let listed: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(listed["svids"][0]["serial"].as_str()?.to_owned())
}

#[test]
fn an_outage_of_half_a_life_interrupts_no_stream() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let service = api(home.path(), ", credential_ttl: 16s");
    let agent = Agent::start(&issuer, &token, &[service]);
    let mut watcher = Watcher::start(home.path());
    let first = watcher.next();
    issuer.kill();
    // Its renewal is due at half of its life, and fails.
    eventually("the agent tells of its trouble", || {
        let status = run(Command::new(binary("tbot-proxy")).args([
            "status",
            "--diagnostics",
            &agent.diagnostics(),
        ]));
        status.contains("Trouble:") && status.contains("workload_identity `app`")
    });
    assert_eq!(fetched(home.path()).as_deref(), Some(first.as_str()));
    issuer.restart();
    assert_ne!(watcher.next(), first);
    assert!(!watcher.has_ended());
}

#[test]
fn an_issuer_that_is_another_one_is_not_believed() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let agent = Agent::start(&issuer, &token, &[api(home.path(), "")]);
    let first = fetched(home.path()).expect("an SVID");
    issuer.kill();
    // In its place, with the same name and another authority.
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("issuer"));
    command
        .args(["serve", "--trust-domain", e2e::TRUST_DOMAIN])
        .args([
            "--listen",
            &issuer.address(),
            "--diagnostics",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(data.path().join("data"));
    let _impostor = Process::spawn(&mut command, &data.path().join("log"));
    agent.renew();
    eventually("the agent tells whom it does not believe", || {
        agent.log().contains("its certificate is refused") || agent.log().contains("TLS handshake")
    });
    assert_eq!(fetched(home.path()).as_deref(), Some(first.as_str()));
}

#[test]
fn a_clock_that_steps_by_an_hour_is_followed() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    let Some(library) = library.into_iter().find(|path| Path::new(path).exists()) else {
        eprintln!("SKIPPED: no libfaketime: `make peers` installs it");
        return;
    };
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let clock = home.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let clock_name = clock.display().to_string();
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock_name.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        // Only the clock of the wall: timers go on as they are.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let service = api(home.path(), ", credential_ttl: 100m");
    let agent = Agent::start_with_environment(&issuer, &token, &[service], &variables);
    let watcher = Watcher::start(home.path());
    let first = watcher.next();
    // By the agent's clock its own certificate, of an hour, has expired, and every new one
    // has when it arrives. What still lives by that clock is served.
    fs::write(&clock, "+1h").unwrap();
    eventually("the agent tells that the clock is wrong", || {
        agent.log().contains("set the clock")
    });
    assert_eq!(fetched(home.path()).as_deref(), Some(first.as_str()));
    // Set right, it goes on by itself.
    fs::write(&clock, "+0").unwrap();
    eventually("the agent has joined again", || {
        agent
            .get("/readyz")
            .is_some_and(|(_, body)| body.contains(r#""bot_identity":{"status":"ready"}"#))
    });
    agent.renew();
    assert_ne!(watcher.next(), first);
}
