use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Issuer, Process, binary, eventually, eventually_some, free_port, probe};

/// A running agent with a directory of its own.
#[derive(Debug)]
pub struct Agent {
    // First, so that it is stopped, and its log shown, before its directory goes.
    process: Process,
    home: TempDir,
    diagnostics: u16,
    head: String,
    services: Vec<String>,
}

impl Agent {
    /// Starts one with these services and waits until every one is ready.
    #[track_caller]
    pub fn start(issuer: &Issuer, token: &str, services: &[String]) -> Self {
        let agent = Self::start_without_waiting(issuer, token, services);
        agent.wait();
        agent
    }

    /// Starts one that knows these issuers, and waits until every service is ready.
    #[track_caller]
    pub fn start_at(issuers: &[&Issuer], token: &str, services: &[String]) -> Self {
        let home = TempDir::new().expect("temporary directory");
        let pin = issuers.first().expect("an issuer").ca_pin();
        let agent = Self::start_in(home, issuers, token, pin, services, "info", &[]);
        agent.wait();
        agent
    }

    /// Starts one with these services.
    #[track_caller]
    pub fn start_without_waiting(issuer: &Issuer, token: &str, services: &[String]) -> Self {
        Self::start_with_pin(issuer, token, issuer.ca_pin(), services)
    }

    /// Starts one with these services, whose diagnostics listen on this port.
    #[track_caller]
    pub fn start_without_waiting_on(
        diagnostics: u16,
        issuer: &Issuer,
        token: &str,
        services: &[String],
    ) -> Self {
        let home = TempDir::new().expect("temporary directory");
        let pin = issuer.ca_pin();
        Self::start_at_port(
            diagnostics,
            home,
            &[issuer],
            token,
            pin,
            services,
            "info",
            &[],
        )
    }

    /// Starts one that keeps its bot identity in this directory, and waits until every
    /// service is ready.
    #[track_caller]
    pub fn start_storing(
        issuer: &Issuer,
        token: &str,
        storage: &Path,
        services: &[String],
    ) -> Self {
        let home = TempDir::new().expect("temporary directory");
        std::os::unix::fs::symlink(storage, home.path().join("storage")).expect("link");
        let pin = issuer.ca_pin();
        let agent = Self::start_in(home, &[issuer], token, pin, services, "info", &[]);
        agent.wait();
        agent
    }

    /// Starts one with these environment variables, and waits until every service is ready.
    #[track_caller]
    pub fn start_with_environment(
        issuer: &Issuer,
        token: &str,
        services: &[String],
        variables: &[(&str, &str)],
    ) -> Self {
        let home = TempDir::new().expect("temporary directory");
        let pin = issuer.ca_pin();
        let agent = Self::start_in(home, &[issuer], token, pin, services, "info", variables);
        agent.wait();
        agent
    }

    /// Starts one that logs everything, and waits until every service is ready.
    #[track_caller]
    pub fn start_verbose(issuer: &Issuer, token: &str, services: &[String]) -> Self {
        let agent = Self::start_logging(issuer, token, issuer.ca_pin(), services, "trace");
        agent.wait();
        agent
    }

    /// Starts one that pins this CA.
    #[track_caller]
    pub fn start_with_pin(issuer: &Issuer, token: &str, pin: &str, services: &[String]) -> Self {
        Self::start_logging(issuer, token, pin, services, "info")
    }

    #[track_caller]
    fn start_logging(
        issuer: &Issuer,
        token: &str,
        pin: &str,
        services: &[String],
        level: &str,
    ) -> Self {
        let home = TempDir::new().expect("temporary directory");
        Self::start_in(home, &[issuer], token, pin, services, level, &[])
    }

    #[track_caller]
    fn start_in(
        home: TempDir,
        issuers: &[&Issuer],
        token: &str,
        pin: &str,
        services: &[String],
        level: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        Self::start_at_port(port, home, issuers, token, pin, services, level, variables)
    }

    #[track_caller]
    #[allow(clippy::too_many_arguments)]
    fn start_at_port(
        diagnostics: u16,
        home: TempDir,
        issuers: &[&Issuer],
        token: &str,
        pin: &str,
        services: &[String],
        level: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let path = home.path().display();
        let addresses: Vec<_> = issuers
            .iter()
            .map(|i| format!("\"{}\"", i.address()))
            .collect();
        let head = format!(
            "version: v1\n\
             issuer: {{ addresses: [{}], ca_pins: [\"{pin}\"] }}\n\
             onboarding: {{ join_method: token }}\n\
             storage: {{ type: directory, path: {path}/storage }}\n\
             diagnostics: {{ listen: \"127.0.0.1:{diagnostics}\" }}\n\
             connection_log: {{ path: {path}/connections.jsonl }}\n",
            addresses.join(", ")
        );
        write_config(home.path(), &head, services);
        let process = spawn(home.path(), token, level, variables);
        Self {
            home,
            diagnostics,
            head,
            services: services.to_vec(),
            process,
        }
    }

    /// Adds a line to its configuration file, before the services, for its next start.
    pub fn configure(&mut self, line: &str) {
        self.head += line;
        self.head.push('\n');
        self.write_services(&self.services);
    }

    /// Orders it to renew every identity now.
    pub fn renew(&self) {
        self.process.signal(Signal::USR1);
    }

    /// Waits until every service is ready.
    #[track_caller]
    pub fn wait(&self) {
        eventually("every service of the agent is ready", || self.is_ready());
    }

    /// Whether `/readyz` says so.
    pub fn is_ready(&self) -> bool {
        matches!(self.get("/readyz"), Some((200, _)))
    }

    /// Stops it (`kill -9`) and starts it again on the same storage, without a token.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.home.path(), "", "info", &[]);
    }

    /// Writes another list of services to its configuration file.
    pub fn write_services(&self, services: &[String]) {
        write_config(self.home.path(), &self.head, services);
    }

    /// Writes any text to its configuration file.
    pub fn write_config_text(&self, text: &str) {
        std::fs::write(self.home.path().join("agent.yaml"), text).expect("configuration");
    }

    /// A directory of this agent.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Address of its diagnostics.
    pub fn diagnostics(&self) -> String {
        format!("127.0.0.1:{}", self.diagnostics)
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The connection records written so far.
    #[track_caller]
    pub fn connections(&self) -> Vec<Value> {
        std::fs::read_to_string(self.path("connections.jsonl"))
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Waits for a connection record.
    #[track_caller]
    pub fn connection(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        eventually_some(what, || self.connections().into_iter().find(|r| wanted(r)))
    }

    /// A GET on its diagnostics port: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        probe::get(&format!("127.0.0.1:{}", self.diagnostics), path)
    }

    /// The value of a metric whose line begins with `prefix`.
    pub fn metric(&self, prefix: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let line = text.lines().find(|line| line.starts_with(prefix))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

/// A `proxy-inbound` service that allows these ids.
pub fn inbound(identity: &str, listen: u16, connect: &str, allow: &[&str]) -> String {
    format!(
        "type: proxy-inbound, name: {identity}-in, selector: {{ name: {identity} }}, \
         listen: \"127.0.0.1:{listen}\", connect: \"{connect}\", allow: [{}]",
        ids(allow)
    )
}

/// A `proxy-outbound` service that expects these ids.
pub fn outbound(identity: &str, listen: u16, connect: u16, expect: &[&str]) -> String {
    format!(
        "type: proxy-outbound, name: {identity}-out, selector: {{ name: {identity} }}, \
         listen: \"127.0.0.1:{listen}\", connect: \"127.0.0.1:{connect}\", expect: [{}]",
        ids(expect)
    )
}

/// A `workload-identity-x509` output to a directory.
pub fn x509_output(identity: &str, directory: &Path) -> String {
    format!(
        "type: workload-identity-x509, name: {identity}-files, selector: {{ name: {identity} }}, \
         destination: {{ type: directory, path: {} }}",
        directory.display()
    )
}

fn ids(ids: &[&str]) -> String {
    let rules: Vec<_> = ids.iter().map(|id| format!("{{ id: \"{id}\" }}")).collect();
    rules.join(", ")
}

fn write_config(home: &Path, head: &str, services: &[String]) {
    let lines: Vec<_> = services
        .iter()
        .map(|s| format!("  - {{ {s} }}\n"))
        .collect();
    let text = format!("{head}services:\n{}", lines.concat());
    std::fs::write(home.join("agent.yaml"), text).expect("configuration");
}

#[track_caller]
fn spawn(home: &Path, token: &str, log_level: &str, variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(binary("tbot-proxy"));
    command.arg("start").arg("-c").arg(home.join("agent.yaml"));
    command.args(["--log-level", log_level]);
    command.envs(variables.iter().copied());
    if !token.is_empty() {
        command.env("TBOT_TOKEN", token);
    }
    Process::spawn(&mut command, &home.join("agent.log"))
}
