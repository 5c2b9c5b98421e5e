//! A join token is not lost with an answer: until there is one that can be used, the
//! agent joins again with the same key, over a restart too, and is the same instance.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use e2e::{Process, binary, eventually, free_port, run};
use serde_json::Value;

/// A way to the issuer on which everything that it says takes its time.
struct SlowWay {
    address: String,
    delay_ms: Arc<AtomicU64>,
}

impl SlowWay {
    fn to(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let delay_ms = Arc::new(AtomicU64::new(delay.as_millis().try_into().unwrap()));
        let delay = delay_ms.clone();
        thread::spawn(move || {
            for agent in listener.incoming().flatten() {
                let Ok(issuer) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let (mut from, mut to) = (agent.try_clone().unwrap(), issuer.try_clone().unwrap());
                thread::spawn(move || {
                    _ = std::io::copy(&mut from, &mut to);
                    _ = to.shutdown(Shutdown::Both);
                });
                let delay = Duration::from_millis(delay.load(Ordering::SeqCst));
                thread::spawn(move || answer_late(issuer, agent, delay));
            }
        });
        Self { address, delay_ms }
    }

    fn hurry(&self) {
        self.delay_ms.store(0, Ordering::SeqCst);
    }
}

fn answer_late(mut issuer: TcpStream, mut agent: TcpStream, delay: Duration) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (at, bytes) in receive {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if agent.write_all(&bytes).is_err() {
                break;
            }
        }
        _ = agent.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 16_384];
    while let Ok(count @ 1..) = issuer.read(&mut buffer) {
        if send
            .send((Instant::now() + delay, buffer[..count].to_vec()))
            .is_err()
        {
            return;
        }
    }
}

struct Scene {
    home: tempfile::TempDir,
    _issuer: Process,
    way: SlowWay,
    token: String,
}

impl Scene {
    fn start(bot_ttl: &str, delay: Duration) -> Self {
        let home = tempfile::tempdir().unwrap();
        let port = free_port();
        let issuer = Process::spawn(
            Command::new(binary("issuer"))
                .args(["serve", "--trust-domain", "e2e.example"])
                .args(["--bot-ttl", bot_ttl])
                .args(["--listen", &format!("127.0.0.1:{port}")])
                .args(["--diagnostics", "127.0.0.1:0", "--data-dir"])
                .arg(home.path().join("data")),
            &home.path().join("issuer.log"),
        );
        eventually("the issuer answers", || {
            issuer_command(home.path(), &["status"])
                .output()
                .is_ok_and(|output| output.status.success())
        });
        let bot = run(&mut issuer_command(
            home.path(),
            &["bot", "add", "app", "-o", "json"],
        ));
        let bot: Value = serde_json::from_str(&bot).unwrap();
        let way = SlowWay::to(port, delay);
        let path = home.path().display();
        fs::write(
            home.path().join("agent.yaml"),
            format!(
                "version: v1\n\
                 issuer: {{ address: \"{}\", ca_pins: [{}] }}\n\
                 onboarding: {{ join_method: token }}\n\
                 storage: {{ type: directory, path: {path}/storage }}\n\
                 services:\n\
                \x20 - {{ type: workload-identity-x509, name: files, selector: {{ name: app }}, destination: {{ type: directory, path: {path}/out }} }}\n",
                way.address, bot["ca_pin"]
            ),
        )
        .unwrap();
        let token = bot["token"].as_str().unwrap().to_owned();
        Self {
            home,
            _issuer: issuer,
            way,
            token,
        }
    }

    fn agent(&self) -> Process {
        let mut command = Command::new(binary("tbot-proxy"));
        command.args(["start", "-c"]);
        command.arg(self.home.path().join("agent.yaml"));
        command.env("TBOT_TOKEN", &self.token);
        Process::spawn(&mut command, &self.home.path().join("agent.log"))
    }

    fn instances(&self) -> Vec<Value> {
        let text = run(&mut issuer_command(
            self.home.path(),
            &["bot", "instances", "app", "-o", "json"],
        ));
        let instances: Value = serde_json::from_str(&text).unwrap();
        instances.as_array().unwrap().clone()
    }

    fn has_identity(&self) -> bool {
        self.home.path().join("storage/..data/bot.pem").exists()
    }
}

fn issuer_command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("issuer"));
    command.args(arguments);
    command.arg("--data-dir").arg(home.join("data"));
    command
}

#[test]
fn after_a_crash_before_the_answer() {
    let scene = Scene::start("1h", Duration::from_secs(3));
    let mut agent = scene.agent();
    eventually("the issuer has recorded the join", || {
        !scene.instances().is_empty()
    });
    agent.kill();
    assert!(!scene.has_identity(), "the answer is still on its way");
    scene.way.hurry();
    let _agent = scene.agent();
    eventually("the agent has joined with the same token", || {
        scene.has_identity()
    });
    assert_eq!(scene.instances().len(), 1);
}

/// As it is where the clock of the agent is ahead by more than a certificate lives.
#[test]
fn when_the_certificate_has_expired_by_the_agents_clock() {
    let scene = Scene::start("5s", Duration::from_secs(6));
    let mut agent = scene.agent();
    eventually("the agent says what both clocks say", || {
        agent.log().contains("is valid until") && agent.log().contains("set the clock")
    });
    assert!(agent.is_running());
    scene.way.hurry();
    eventually("the agent has joined with the same token", || {
        scene.has_identity()
    });
    assert_eq!(scene.instances().len(), 1);
}
