//! `tbot-proxy check` says all that is wrong with a file, each with its place.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

const PIN: &str = "sha256:abababababababababababababababababababababababababababababababab";

fn check(text: &str) -> (Option<i32>, String, String) {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("agent.yaml"), text).unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_tbot-proxy"))
        .args(["check", "-c", "agent.yaml"])
        .current_dir(home.path())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn good() -> String {
    format!(
        "version: v1\n\
         issuer: {{ address: \"127.0.0.1:3025\", ca_pins: [\"{PIN}\"] }}\n\
         onboarding: {{ join_method: token }}\n\
         storage: {{ type: memory }}\n\
         services:\n\
        \x20 - type: proxy-inbound\n\
        \x20   name: in\n\
        \x20   selector: {{ name: web }}\n\
        \x20   listen: 127.0.0.1:0\n\
        \x20   connect: 127.0.0.1:8000\n\
        \x20   allow: [{{ id: spiffe://td/a }}]\n"
    )
}

#[test]
fn a_good_file_is_one_line() {
    assert_eq!(
        check(&good()),
        (
            Some(0),
            "agent.yaml: no mistakes, 1 service\n".to_owned(),
            String::new()
        )
    );
}

#[test]
fn every_mistake_is_one_line_in_order() {
    let text = good()
        .replace(PIN, "sha256:12")
        .replace("name: in", "nmae: in")
        .replace("127.0.0.1:8000", "10.1.2.3:8000")
        .replace("spiffe://td/a", "spiffe://Td/a");
    let (code, stdout, stderr) = check(&text);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let lines: Vec<&str> = stderr.lines().collect();
    for (line, (place, part)) in lines.iter().zip([
        ("agent.yaml:2:48: ", "sha256:12"),
        ("agent.yaml:6:5: ", "missing key `name`"),
        (
            "agent.yaml:7:5: ",
            "unknown key `nmae`: did you mean `name`?",
        ),
        ("agent.yaml:10:14: ", "10.1.2.3:8000 is not loopback"),
        ("agent.yaml:11:19: ", "spiffe://Td/a"),
    ]) {
        assert!(
            line.starts_with(place) && line.contains(part),
            "{line}\nwanted {place}{part}"
        );
    }
    assert_eq!(lines.len(), 5, "{stderr}");
}

#[test]
fn text_that_is_not_yaml_has_a_place_too() {
    let (code, _, stderr) = check("version: v1\nservices: [\n");
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with("agent.yaml:2:11: not YAML: "),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn the_environment_changes_nothing_about_the_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("agent.yaml");
    std::fs::write(&path, good()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tbot-proxy"))
        .arg("check")
        .env("TBOT_CONFIG", &path)
        .env("TBOT_ISSUER", "not an address")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
