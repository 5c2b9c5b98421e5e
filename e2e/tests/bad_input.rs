//! What a user gets wrong: one line that names the value and the remedy, exit
//! status 1, nothing half-written.

use std::{net::TcpListener, process::Command};

use e2e::{Agent, Issuer, binary, eventually, inbound, x509_output};

/// Waits for the agent to give up; its last words.
#[track_caller]
fn gives_up(agent: &mut Agent) -> String {
    let status = agent.process().wait();
    let log = agent.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[test]
fn a_wrong_pin_names_both_pins_and_nothing_is_sent() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let wrong = format!("sha256:{}", "ab".repeat(32));
    let mut agent = Agent::start_with_pin(
        &issuer,
        &token,
        &wrong,
        &[x509_output("app", &issuer.home().join("out"))],
    );
    let log = gives_up(&mut agent);
    assert!(log.contains(&wrong), "{log}");
    assert!(log.contains(issuer.ca_pin()), "{log}");
    assert!(!log.contains(&token), "the token is in the log");
    assert!(!issuer.home().join("out/svid.pem").exists());
    // The token was not spent on an issuer that is not ours.
    Agent::start(
        &issuer,
        &token,
        &[x509_output("app", &issuer.home().join("out"))],
    );
}

#[test]
fn a_used_token_and_an_unknown_one_are_refused() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let services = [x509_output("app", &issuer.home().join("out"))];
    let _first = Agent::start(&issuer, &token, &services);
    for token in [token.as_str(), "0123456789abcdef0123456789abcdef"] {
        let mut second = Agent::start_without_waiting(
            &issuer,
            token,
            &[x509_output("app", &issuer.home().join("out2"))],
        );
        let log = gives_up(&mut second);
        assert!(log.contains("token"), "{log}");
        assert!(!log.contains(token), "the token is in the log");
        assert!(!issuer.home().join("out2/svid.pem").exists());
    }
    let denied = issuer
        .audit()
        .into_iter()
        .filter(|e| e["event"] == "bot.join" && e["success"] == false)
        .count();
    assert_eq!(denied, 2);
}

#[test]
fn an_expired_token_is_refused() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = issuer.token("app", &["--ttl", "1s"]);
    // The token's own life is what is waited for.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let mut agent = Agent::start_without_waiting(
        &issuer,
        &token,
        &[x509_output("app", &issuer.home().join("out"))],
    );
    let log = gives_up(&mut agent);
    assert!(log.contains("token"), "{log}");
    let event = issuer.audit_event("the refusal", |e| {
        e["event"] == "bot.join" && e["success"] == false
    });
    assert!(event["fields"].to_string().contains("expired"), "{event}");
}

#[test]
fn a_port_in_use_is_named() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut agent = Agent::start_without_waiting(
        &issuer,
        &token,
        &[inbound(
            "app",
            port,
            "127.0.0.1:1",
            &["spiffe://e2e.example/app"],
        )],
    );
    let log = gives_up(&mut agent);
    assert!(
        log.contains(&port.to_string()) && log.contains("in use"),
        "{log}"
    );

    let home = tempfile::tempdir().unwrap();
    let output = Command::new(binary("issuer"))
        .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--diagnostics", "127.0.0.1:0", "--data-dir"])
        .arg(home.path().join("data"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&port.to_string()) && text.contains("in use"),
        "{text}"
    );
}

#[test]
fn an_unreadable_configuration_is_refused_before_anything_runs() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("agent.yaml");
    std::fs::write(
        &file,
        "version: v1\n\
         issuer: { address: \"127.0.0.1:1\", ca_pins: [\"sha256:12\"] }\n\
         onboarding: { join_method: token, token: x }\n\
         storage: { type: memory }\n\
         services:\n\
        \x20 - { type: proxy-inbound, name: in, selector: { name: a }, listen: \"127.0.0.1:0\",\n\
        \x20     connect: \"127.0.0.1:1\", allow: [{ id: \"spiffe://Example.org/a\" }], colour: red }\n\
        \x20 - { type: proxy-outbound, name: out, selector: { name: a }, listen: \"127.0.0.1:0\", connect: \"127.0.0.1:1\" }\n",
    )
    .unwrap();
    let output = Command::new(binary("tbot-proxy"))
        .arg("check")
        .arg("-c")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    for part in [
        "agent.yaml:2:",
        "sha256:12",
        "agent.yaml:7:",
        "Example.org",
        "colour",
        "agent.yaml:8:",
        "expect",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_copied_identity_locks_that_instance_alone() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let out = issuer.home().join("out");
    let mut original = Agent::start(&issuer, &token, &[x509_output("app", &out)]);
    let other_token = issuer.token("app", &[]);
    let other = Agent::start(
        &issuer,
        &other_token,
        &[x509_output("app", &issuer.home().join("other"))],
    );
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp")
        .arg("-a")
        .arg(original.path("storage"))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(status.success());

    // The original renews, so that the copy's generation is an old one; then it
    // comes back with the copied files.
    issuer.run(&["renew-now"]);
    issuer.audit_event("the original renewed", |e| {
        e["event"] == "bot.renew" && e["success"] == true
    });
    original.process().kill();
    std::fs::remove_dir_all(original.path("storage")).unwrap();
    std::fs::rename(copy.path().join("storage"), original.path("storage")).unwrap();
    original.restart();
    issuer.run(&["renew-now"]);
    issuer.audit_event("the copy is found out", |e| {
        e["event"] == "bot.renew" && e["success"] == false
    });
    eventually("the agent says that it is locked", || {
        original.log().contains("locked")
    });
    assert!(other.is_ready());
    issuer.run(&["renew-now"]);
    eventually("the other instance still renews", || {
        issuer
            .audit()
            .iter()
            .filter(|e| e["event"] == "bot.renew" && e["success"] == true)
            .count()
            >= 3
    });
}
