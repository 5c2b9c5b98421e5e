use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{Issuer, Process, binary, eventually};

/// `loadtest issue` with its JSON report, for the workload identity `app` (see [`Issuer::register`]),
/// without a warm-up. Its agents keep their identities in the issuer's directory, so that a later one
/// needs nobody to join.
fn command(issuer: &Issuer) -> Command {
    let mut command = Command::new(binary("loadtest"));
    command
        .args(["issue", "--json", "--warmup=0s", "--roles=app"])
        .args(["--target", &issuer.address()])
        .arg("--admin-socket")
        .arg(issuer.admin_socket())
        .arg("--identities")
        .arg(issuer.home().join("load-identities"));
    command
}

/// Runs `loadtest issue` with these options to its end.
pub fn load(issuer: &Issuer, options: &[&str]) -> Output {
    let output = command(issuer).args(options).output();
    output.expect("loadtest")
}

/// One call for the workload identity `app`: `None` if an SVID came, else the kind of failure and
/// what was said.
#[track_caller]
pub fn one_call(issuer: &Issuer) -> Option<(String, String)> {
    // Longer than the issuer waits for its database.
    let options = [
        "--workload-identity=app",
        "-c=1",
        "-n=1",
        "--timeout=30s",
        "--max-error-rate=1",
    ];
    let report = report(&load(issuer, &options));
    let errors = report["errors"].as_object().expect("errors");
    let error = |(kind, error): (&String, &Value)| {
        let first = error["first"].as_str().unwrap_or_default();
        (kind.clone(), first.to_owned())
    };
    errors.iter().next().map(error)
}

/// The report of a run that did what it should.
#[track_caller]
pub fn report(output: &Output) -> Value {
    let (errors, said) = (&output.stderr, &output.stdout);
    let (errors, said) = (
        String::from_utf8_lossy(errors),
        String::from_utf8_lossy(said),
    );
    assert!(output.status.success(), "{errors}{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A `loadtest issue` that runs until it is stopped, whatever the issuer does meanwhile.
#[derive(Debug)]
pub struct IssueLoad {
    process: Process,
    issued: PathBuf,
}

impl IssueLoad {
    /// So many agents, each asking for the workload identity `app` again and again.
    #[track_caller]
    pub fn start(issuer: &Issuer, agents: usize, options: &[&str]) -> Self {
        let issued = issuer.home().join("issued");
        let mut command = command(issuer);
        command
            .args(["--workload-identity=app", "-d=1h", "--max-error-rate=1"])
            .args(["-c", &agents.to_string()])
            .arg("--issued")
            .arg(&issued)
            .args(options);
        let report = issuer.home().join("load.json");
        // Not behind that of a load before it.
        let _ = std::fs::remove_file(&report);
        let process = Process::spawn(&mut command, &report);
        let load = Self { process, issued };
        load.wait_for_more(1);
        load
    }

    /// Serial numbers of what was received so far.
    pub fn received(&self) -> Vec<String> {
        lines(&self.issued)
    }

    /// Waits until so many more were received than now.
    #[track_caller]
    pub fn wait_for_more(&self, more: usize) {
        let enough = self.received().len() + more;
        eventually("SVIDs are issued", || self.received().len() >= enough);
    }

    /// Ends it: how often each kind of failure was seen, and what was received.
    #[track_caller]
    pub fn stop(mut self) -> (BTreeMap<String, u64>, Vec<String>) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        let text = self.process.log();
        assert!(status.success(), "{status}: {text}");
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let errors = report["errors"].as_object().expect("errors");
        let count = |(kind, error): (&String, &Value)| {
            let count = error["count"].as_u64().expect("a count");
            (kind.clone(), count)
        };
        (errors.iter().map(count).collect(), self.received())
    }
}

/// The complete lines of a file.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}
