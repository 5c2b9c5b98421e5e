//! A renewal of the bot identity keeps its new key before it asks for a certificate,
//! and asks with that key until there is an answer, over a restart too: the issuer
//! takes a repetition for the same renewal, a second key would look like a copy.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use e2e::{Agent, Issuer, eventually, x509_output};
use rustix::process::Signal;

struct Scene {
    issuer: Issuer,
    agent: Agent,
}

impl Scene {
    fn start() -> Self {
        let issuer = Issuer::start();
        let token = issuer.register("app");
        let out = issuer.home().join("out");
        let agent = Agent::start(&issuer, &token, &[x509_output("app", &out)]);
        Self { issuer, agent }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.agent.path("storage/..data").join(name)
    }

    /// Lets a renewal fail for want of an issuer; the key that was kept for it.
    fn fail_to_renew(&mut self) -> Vec<u8> {
        let held = fs::read(self.file("bot_key.pem")).unwrap();
        self.issuer.kill();
        self.agent.process().signal(Signal::USR1);
        eventually("the key of the renewal is kept", || {
            self.file("next_key.pem").exists()
        });
        assert_eq!(fs::read(self.file("bot_key.pem")).unwrap(), held);
        let next = fs::read(self.file("next_key.pem")).unwrap();
        assert_ne!(next, held);
        next
    }

    #[track_caller]
    fn assert_renewed_with(&self, key: &[u8]) {
        eventually("the renewal is done", || {
            !self.file("next_key.pem").exists()
        });
        assert_eq!(fs::read(self.file("bot_key.pem")).unwrap(), key);
        let refused = |event: &serde_json::Value| event["success"] == false;
        assert!(
            !self.issuer.audit().iter().any(refused),
            "{:?}",
            self.issuer.audit()
        );
    }
}

#[test]
fn by_the_running_agent() {
    let mut scene = Scene::start();
    let key = scene.fail_to_renew();
    scene.issuer.restart();
    scene.assert_renewed_with(&key);
}

#[test]
fn by_an_agent_that_was_killed_meanwhile() {
    let mut scene = Scene::start();
    let key = scene.fail_to_renew();
    scene.agent.process().kill();
    scene.issuer.restart();
    // By itself and at once: what it holds may have been superseded.
    scene.agent.restart();
    scene.assert_renewed_with(&key);
}
