use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, binary, eventually, eventually_some, free_port, probe, run};

/// Trust domain of every issuer of these tests.
pub const TRUST_DOMAIN: &str = "e2e.example";

/// A running issuer with a data directory of its own.
#[derive(Debug)]
pub struct Issuer {
    // First, so that it is stopped, and its log shown, before its directory goes.
    process: Process,
    home: TempDir,
    data_dir: PathBuf,
    port: u16,
    diagnostics: String,
    pin: String,
    more: Vec<String>,
}

impl Issuer {
    /// Starts one and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_logging("info", None)
    }

    /// Starts one with its data here.
    #[track_caller]
    pub fn start_on(data_dir: &Path) -> Self {
        Self::start_logging("info", Some(data_dir))
    }

    /// Starts one that logs everything.
    #[track_caller]
    pub fn start_verbose() -> Self {
        Self::start_logging("trace", None)
    }

    /// Starts one with more flags.
    #[track_caller]
    pub fn start_with(more: &[&str]) -> Self {
        Self::start_all("info", None, more)
    }

    #[track_caller]
    fn start_logging(level: &str, data_dir: Option<&Path>) -> Self {
        Self::start_all(level, data_dir, &[])
    }

    #[track_caller]
    fn start_all(level: &str, data_dir: Option<&Path>, more: &[&str]) -> Self {
        let home = TempDir::new().expect("temporary directory");
        let data_dir = data_dir.map_or_else(|| home.path().join("issuer-data"), Path::to_owned);
        let port = free_port();
        let more: Vec<_> = more.iter().map(ToString::to_string).collect();
        let process = spawn(home.path(), &data_dir, port, level, &more);
        let mut issuer = Self {
            home,
            more,
            data_dir,
            port,
            diagnostics: String::new(),
            pin: String::new(),
            process,
        };
        issuer.wait();
        issuer
    }

    #[track_caller]
    fn wait(&mut self) {
        eventually("the issuer answers", || {
            let status = self.command(&["status", "-o", "json"]).output();
            status.is_ok_and(|output| output.status.success())
        });
        let status = self.json(&["status"]);
        self.pin = string(&status["ca_pin"]);
        self.diagnostics = string(&status["diagnostics_address"]);
    }

    /// What `/readyz` says: whether it is ready, and all that it answers.
    #[track_caller]
    pub fn ready(&self) -> (bool, String) {
        let (status, body) = probe::get(&self.diagnostics, "/readyz").expect("diagnostics");
        (status == 200, body)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process = spawn(
            self.home.path(),
            &self.data_dir,
            self.port,
            "info",
            &self.more,
        );
        self.wait();
    }

    /// Where agents reach it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A directory of this test.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The socket of its operators.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The file of the key that its keys are sealed with.
    pub fn key_file(&self) -> PathBuf {
        self.data_dir.join("ca.kek")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// An `issuer …` command against it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("issuer"));
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir);
        command
    }

    /// Runs an `issuer …` command; its standard output.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    /// Runs an `issuer … -o json` command.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The pin of its CA (known even while it is away).
    pub fn ca_pin(&self) -> &str {
        &self.pin
    }

    /// Registers a workload identity `spiffe://e2e.example/<name>`, a role and a
    /// bot for it; a join token.
    #[track_caller]
    pub fn register(&self, name: &str) -> String {
        let file = self.home.path().join(format!("{name}.resources.yaml"));
        let text = format!(
            "kind: workload_identity\nversion: v1\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\n\
             spec: {{ spiffe: {{ id: /{name} }} }}\n\
             ---\n\
             kind: role\nversion: v1\nmetadata: {{ name: {name} }}\n\
             spec: {{ allow: {{ workload_identity_labels: {{ app: [{name}] }} }} }}\n"
        );
        std::fs::write(&file, text).expect("resource file");
        self.run(&["apply", "-f", file.to_str().expect("UTF-8 path")]);
        self.token(name, &[])
    }

    /// A further join token of a bot, by `issuer bot add`.
    #[track_caller]
    pub fn token(&self, bot: &str, more: &[&str]) -> String {
        let arguments = [&["bot", "add", bot, "--roles", bot][..], more].concat();
        string(&self.json(&arguments)["token"])
    }

    /// The audit trail so far.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        self.run(&["audit", "-o", "json"])
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Serial numbers of the X509-SVIDs of a workload identity on the audit trail.
    #[track_caller]
    pub fn issued(&self, workload_identity: &str) -> Vec<String> {
        let id = format!("spiffe://{TRUST_DOMAIN}/{workload_identity}");
        let audit = self.audit();
        let issued = audit
            .iter()
            .filter(|e| e["event"] == "spiffe.svid.issued" && e["success"] == true)
            .filter(|e| e["fields"]["spiffe_id"] == id.as_str());
        issued
            .map(|e| string(&e["fields"]["serial_number"]))
            .collect()
    }

    /// Checks that the audit trail is whole: numbered without a gap, and every record
    /// chained to the one before it.
    #[track_caller]
    pub fn verify_audit(&self) {
        for (index, event) in self.audit().iter().enumerate() {
            assert_eq!(event["sequence"], index + 1, "a gap in the audit trail");
        }
        self.run(&["audit", "verify"]);
    }

    /// Waits for an audit event.
    #[track_caller]
    pub fn audit_event(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        eventually_some(what, || self.audit().into_iter().find(|e| wanted(e)))
    }
}

#[track_caller]
fn spawn(home: &Path, data_dir: &Path, port: u16, log_level: &str, more: &[String]) -> Process {
    Process::spawn(
        Command::new(binary("issuer"))
            .args(["serve", "--trust-domain", TRUST_DOMAIN])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--diagnostics", "127.0.0.1:0", "--log-level", log_level])
            .args(more)
            .arg("--data-dir")
            .arg(data_dir),
        &home.join("issuer.log"),
    )
}

#[track_caller]
fn string(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
        .to_owned()
}
