//! py-spiffe as PyPI has it, over gRPC C core: its `:authority` is the socket's path.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use identity::testing::TestCa;
use serde_json::{Value, json};

use crate::support::{World, python, soon};

struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Option<BufReader<ChildStdout>>,
    told: Vec<Value>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    fn start(world: &World) -> Option<Self> {
        let mut process = python("spiffe_client.py")?
            .arg(world.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            stdin: process.stdin.take(),
            lines: process.stdout.take().map(BufReader::new),
            process,
            told: Vec::new(),
        })
    }

    /// The next line of this source; those of others are kept for later.
    async fn next(&mut self, of: &'static str) -> Value {
        loop {
            if let Some(index) = self.told.iter().position(|told| told["of"] == of) {
                return self.told.remove(index);
            }
            let mut lines = self.lines.take().unwrap();
            let read = tokio::task::spawn_blocking(move || {
                let mut line = String::new();
                assert_ne!(lines.read_line(&mut line).unwrap(), 0, "py-spiffe ended");
                (lines, serde_json::from_str(&line).unwrap())
            });
            let (lines, told) = soon(read).await.unwrap();
            self.lines = Some(lines);
            self.told.push(told);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn py_spiffes_client_and_sources_follow_rotations_federation_and_a_restart() {
    let mut world = World::start();
    let Some(mut client) = Client::start(&world) else {
        return;
    };
    let (app, other) = ("spiffe://one.example/app", "spiffe://one.example/other");
    let told = client.next("client").await;
    assert_eq!(told["id"], app);
    assert_eq!(told["chain"], 1);
    assert_eq!(told["token_id"], app);
    assert_eq!(told["valid_id"], app);
    let first = client.next("x509").await;
    assert_eq!(first["ids"], json!([app]), "a source holds what it picks");
    assert_eq!(first["bundles"], json!(["one.example"]));
    assert_eq!(client.next("jwt").await["token_id"], app);

    world.backend.rotate();
    let second = client.next("x509").await;
    assert_ne!(second["serial"], first["serial"]);

    world
        .backend
        .federate(vec![TestCa::new("two.example").bundle()]);
    let third = client.next("x509").await;
    assert_eq!(third["bundles"], json!(["one.example", "two.example"]));
    let jwt = client.next("jwt").await;
    assert_eq!(jwt["bundles"], json!(["one.example", "two.example"]));

    // A restart: it comes back, and follows again.
    world.stop();
    world = world.restarted().await;
    let fourth = client.next("x509").await;
    assert_eq!(fourth["ids"], first["ids"]);
    world.backend.set_identities(&[("/other", "")]);
    let fifth = client.next("x509").await;
    assert_eq!(fifth["ids"], json!([other]));

    drop(client.stdin.take());
    let mut rest = String::new();
    let mut lines = client.lines.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        lines.read_to_string(&mut rest).unwrap();
        rest
    });
    assert!(soon(read).await.unwrap().ends_with("{\"of\": \"end\"}\n"));
}
