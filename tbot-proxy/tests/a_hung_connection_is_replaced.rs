//! A connection to the issuer that dies without a word (a firewall that forgets it, a
//! machine that is gone) is given up within seconds, and calls go on over a new one.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{Issuer, Process, binary, eventually};
use rustix::process::Signal;

/// Forwards connections to the issuer until it is told to forward nothing more of those
/// that are open; new ones are forwarded as before.
struct Forwarder {
    address: String,
    /// Connections of a lower number are forwarded no more.
    alive_from: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

impl Forwarder {
    fn to(issuer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (alive_from, accepted) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (alive, count) = (alive_from.clone(), accepted.clone());
        thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let Ok(issuer) = TcpStream::connect(&issuer) else {
                    continue;
                };
                for (from, to) in [(&agent, &issuer), (&issuer, &agent)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let alive = alive.clone();
                    thread::spawn(move || forward(from, to, number, &alive));
                }
            }
        });
        Self {
            address,
            alive_from,
            accepted,
        }
    }

    fn hang(&self) {
        let accepted = self.accepted.load(Ordering::SeqCst);
        self.alive_from.store(accepted, Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, number: usize, alive_from: &AtomicUsize) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            return;
        }
        if number < alive_from.load(Ordering::SeqCst) {
            // Neither forwarded nor closed.
            continue;
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn agent(home: &Path, token: &str) -> Process {
    let mut command = Command::new(binary("tbot-proxy"));
    command.args(["start", "-c"]).arg(home.join("agent.yaml"));
    command.env("TBOT_TOKEN", token);
    Process::spawn(&mut command, &home.join("agent.log"))
}

#[test]
fn within_seconds() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let forwarder = Forwarder::to(issuer.address());
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = home.display();
    fs::write(
        home.join("agent.yaml"),
        format!(
            "version: v1\n\
             issuer: {{ address: \"{}\", ca_pins: [\"{}\"] }}\n\
             onboarding: {{ join_method: token }}\n\
             storage: {{ type: directory, path: {path}/storage }}\n\
             services:\n\
            \x20 - {{ type: workload-identity-x509, name: files, selector: {{ name: app }}, destination: {{ type: directory, path: {path}/out }} }}\n",
            forwarder.address,
            issuer.ca_pin()
        ),
    )
    .unwrap();
    let process = agent(home, &token);
    let svid = || fs::read(home.join("out/svid.pem")).unwrap_or_default();
    eventually("the files are there", || !svid().is_empty());
    let before = svid();

    forwarder.hang();
    process.signal(Signal::USR1);
    let began = Instant::now();
    eventually("a new SVID is issued", || svid() != before);
    // One call that hangs, or one probe; not several in a row.
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
}
