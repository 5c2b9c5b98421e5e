//! What is wrong at the start: one line that names the value and the remedy, exit
//! status 1 (2 for the command line), nothing half-written.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const PIN: &str = "sha256:abababababababababababababababababababababababababababababababab";
const TOKEN: &str = "a-token-that-is-secret";

/// A configuration that fails at nothing but what a test changes. Nobody is at `issuer`.
struct Case {
    home: tempfile::TempDir,
    text: String,
    token: Option<&'static str>,
}

impl Case {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().display();
        let text = format!(
            "version: v1\n\
             issuer: {{ address: \"127.0.0.1:1\", ca_pins: [\"{PIN}\"] }}\n\
             onboarding: {{ join_method: token }}\n\
             storage: {{ type: directory, path: {path}/storage }}\n\
             services:\n\
            \x20 - {{ type: proxy-inbound, name: in, selector: {{ name: w }}, listen: \"127.0.0.1:0\", connect: \"127.0.0.1:1\", allow: [{{ trust_domain: td }}] }}\n\
            \x20 - {{ type: workload-identity-x509, name: files, selector: {{ name: w }}, destination: {{ type: directory, path: {path}/out }} }}\n"
        );
        Self {
            home,
            text,
            token: Some(TOKEN),
        }
    }

    fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from}");
        self.text = self.text.replace(from, to);
        self
    }

    fn add(mut self, line: &str) -> Self {
        self.text = self
            .text
            .replace("services:\n", &format!("{line}\nservices:\n"));
        self
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// Starts the agent, which must give up by itself; the one line that it says.
    fn gives_up(&self) -> String {
        let file = self.path().join("agent.yaml");
        fs::write(&file, &self.text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tbot-proxy"));
        command
            .args(["--log-level", "off", "start", "-c"])
            .arg(&file)
            .env_remove("TBOT_TOKEN");
        if let Some(token) = self.token {
            command.env("TBOT_TOKEN", token);
        }
        let Output { status, stderr, .. } = command.output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!stderr.contains(TOKEN), "{stderr}");
        assert!(!self.path().join("out").exists());
        stderr
    }
}

#[track_caller]
fn assert_names(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

#[test]
fn a_configuration_file_that_is_not_there() {
    let output = Command::new(env!("CARGO_BIN_EXE_tbot-proxy"))
        .args(["start", "-c", "/nowhere/agent.yaml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert_names(&line, &["/nowhere/agent.yaml", "No such file"]);
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for arguments in [
        &["start"][..],
        &["begin"],
        &["start", "-c", "x", "--colour"],
        &["--log-level", "=nonsense=", "version"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tbot-proxy"))
            .args(arguments)
            .env_remove("TBOT_CONFIG")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn no_token_and_no_identity() {
    for token in [None, Some("")] {
        let mut case = Case::new();
        case.token = token;
        assert_names(
            &case.gives_up(),
            &["TBOT_TOKEN", "onboarding.token", "issuer bot add"],
        );
    }
}

#[test]
fn a_token_file_that_cannot_be_read() {
    let mut case = Case::new().replace(
        "join_method: token",
        "join_method: token, token: /nowhere/token",
    );
    case.token = None;
    assert_names(
        &case.gives_up(),
        &["token", "/nowhere/token", "No such file"],
    );
}

#[test]
fn a_ca_file_that_holds_no_certificate() {
    let case = Case::new();
    let path = case.path().join("ca.pem");
    fs::write(&path, "not a certificate\n").unwrap();
    let path = path.display().to_string();
    let case = case.replace(
        &format!("ca_pins: [\"{PIN}\"]"),
        &format!("ca_path: {path}"),
    );
    assert_names(
        &case.gives_up(),
        &["issuer.ca_path", &path, "no certificate"],
    );
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let case = Case::new().replace("127.0.0.1:0", &address);
    assert_names(&case.gives_up(), &["\"in\"", &address, "in use"]);
    let case = Case::new().add(&format!("diagnostics: {{ listen: \"{address}\" }}"));
    assert_names(&case.gives_up(), &["diagnostics", &address, "in use"]);
}

#[test]
fn an_address_that_is_not_ours() {
    // TEST-NET-1 (RFC 5737).
    assert!(UdpSocket::bind("192.0.2.1:0").is_err());
    let case = Case::new().replace("127.0.0.1:0", "192.0.2.1:4433");
    assert_names(&case.gives_up(), &["\"in\"", "192.0.2.1:4433"]);
}

#[test]
fn a_storage_that_others_can_read() {
    let case = Case::new();
    let storage = case.path().join("storage");
    fs::create_dir(&storage).unwrap();
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o755)).unwrap();
    let line = case.gives_up();
    assert_names(
        &line,
        &[
            "storage",
            &storage.display().to_string(),
            "0755",
            "chmod go-rwx",
        ],
    );
    assert_eq!(fs::read_dir(&storage).unwrap().count(), 0);
}

#[test]
fn a_storage_that_is_not_a_directory() {
    let case = Case::new();
    let storage = case.path().join("storage");
    fs::write(&storage, "").unwrap();
    assert_names(
        &case.gives_up(),
        &["storage", &storage.display().to_string()],
    );
}

#[test]
fn a_storage_that_cannot_be_written() {
    // A read-only place for every user, root too.
    let case = Case::new();
    let path = format!("{}/storage", case.path().display());
    let case = case.replace(&path, "/proc/tbot-proxy");
    assert_names(
        &case.gives_up(),
        &["storage", "/proc/tbot-proxy", "may write"],
    );
}

#[test]
fn a_storage_that_is_damaged() {
    let case = Case::new();
    let storage = case.path().join("storage");
    let version = storage.join("..0123456789abcdef");
    fs::create_dir_all(&version).unwrap();
    for directory in [&storage, &version] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let file = version.join("bot.pem");
    fs::write(&file, "rubbish").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("..0123456789abcdef", storage.join("..data")).unwrap();
    assert_names(
        &case.gives_up(),
        &["bot_key.pem", "is damaged", "join anew"],
    );
}

#[test]
fn a_connection_log_that_cannot_be_written() {
    let case = Case::new().add("connection_log: { path: /nowhere/log }");
    assert_names(&case.gives_up(), &["connection_log", "/nowhere/log"]);
}

#[test]
fn a_flag_that_is_not_an_address() {
    let case = Case::new();
    let file = case.path().join("agent.yaml");
    fs::write(&file, &case.text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tbot-proxy"))
        .args(["start", "--issuer", "nowhere", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert_names(&line, &["--issuer (TBOT_ISSUER)", "nowhere"]);
}
