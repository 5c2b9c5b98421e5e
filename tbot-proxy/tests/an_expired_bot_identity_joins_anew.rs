//! A bot identity that expired while the agent was down: with a token the agent
//! joins anew; without one it says what it needs.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use e2e::{Process, binary, eventually, free_port, run};
use serde_json::Value;

/// Starts an issuer whose bot certificates live for `bot_ttl`.
fn issuer(home: &Path, port: u16, bot_ttl: &str) -> Process {
    let process = Process::spawn(
        Command::new(binary("issuer"))
            .args([
                "serve",
                "--trust-domain",
                "e2e.example",
                "--bot-ttl",
                bot_ttl,
            ])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--diagnostics", "127.0.0.1:0", "--data-dir"])
            .arg(home.join("data")),
        &home.join("issuer.log"),
    );
    eventually("the issuer answers", || {
        command(home, &["status"])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    process
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("issuer"));
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(home.join("data"));
    command
}

fn agent(home: &Path, token: &str) -> Command {
    let mut command = Command::new(binary("tbot-proxy"));
    command.args(["start", "-c"]).arg(home.join("agent.yaml"));
    command.env("TBOT_TOKEN", token);
    command
}

fn instance(home: &Path) -> String {
    let state = fs::read(home.join("storage/..data/state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    state["instance_id"].as_str().unwrap().to_owned()
}

#[test]
fn with_a_token_it_joins_and_without_one_it_says_so() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let port = free_port();
    let _issuer = issuer(home, port, "5s");
    fs::write(
        home.join("r.yaml"),
        "kind: workload_identity\nversion: v1\nmetadata: { name: app, labels: { app: app } }\nspec: { spiffe: { id: /app } }\n\
         ---\nkind: role\nversion: v1\nmetadata: { name: app }\nspec: { allow: { workload_identity_labels: { app: [app] } } }\n",
    )
    .unwrap();
    let resources = home.join("r.yaml");
    run(&mut command(
        home,
        &["apply", "-f", resources.to_str().unwrap()],
    ));
    let bot = || -> Value {
        let text = run(&mut command(
            home,
            &["bot", "add", "app", "--roles", "app", "-o", "json"],
        ));
        serde_json::from_str(&text).unwrap()
    };
    let first = bot();
    let path = home.display();
    fs::write(
        home.join("agent.yaml"),
        format!(
            "version: v1\n\
             issuer: {{ address: \"127.0.0.1:{port}\", ca_pins: [{}] }}\n\
             onboarding: {{ join_method: token }}\n\
             storage: {{ type: directory, path: {path}/storage }}\n\
             services:\n\
            \x20 - {{ type: workload-identity-x509, name: files, selector: {{ name: app }}, destination: {{ type: directory, path: {path}/out }} }}\n",
            first["ca_pin"]
        ),
    )
    .unwrap();
    let mut process = Process::spawn(
        &mut agent(home, first["token"].as_str().unwrap()),
        &home.join("agent.log"),
    );
    eventually("the files are there", || home.join("out/svid.pem").exists());
    process.kill();
    let joined = instance(home);

    // The certificate's own life is what is waited for.
    let certificate = home.join("storage/..data/bot.pem");
    eventually("the bot certificate has expired", || {
        let expiring = Command::new("openssl")
            .args(["x509", "-noout", "-checkend", "0", "-in"])
            .arg(&certificate)
            .output()
            .unwrap();
        !expiring.status.success()
    });

    let Output { status, stderr, .. } = agent(home, "").output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("expired") && text.contains("TBOT_TOKEN"),
        "{text}"
    );
    assert_eq!(instance(home), joined);

    let second = bot();
    let _process = Process::spawn(
        &mut agent(home, second["token"].as_str().unwrap()),
        &home.join("agent.log"),
    );
    eventually("it is another instance", || instance(home) != joined);
}
