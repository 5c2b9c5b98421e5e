use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Process, eventually, free_port, run};

/// A PostgreSQL cluster of this test alone, with a directory and a port of its own. It
/// trusts whoever comes from this machine; its superuser is `app`.
#[derive(Debug)]
pub struct Postgres {
    // First, so that it is stopped, and its log shown, before its directory goes.
    process: Process,
    home: TempDir,
    port: u16,
    options: Vec<&'static str>,
}

impl Postgres {
    /// Starts one that does not wait for the disk: all that it has is lost with the machine,
    /// not with its process.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&["-c", "fsync=off"])
    }

    /// Starts one as it comes, waiting for the disk at each commit.
    #[track_caller]
    pub fn start_durable() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these options of `postgres`, as `-c name=value`.
    #[track_caller]
    pub fn start_with(options: &[&'static str]) -> Self {
        let home = tempfile::Builder::new()
            .prefix("e2e-postgres-")
            .tempdir_in("/tmp")
            .expect("temporary directory");
        let data = home.path().join("data");
        std::fs::create_dir(&data).expect("data directory");
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown")
                .arg("-R")
                .arg("postgres")
                .arg(home.path()));
        }
        run(as_its_user("initdb").arg("-D").arg(&data).args([
            "-U",
            "app",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]));
        let port = free_port();
        let process = spawn(home.path(), port, options);
        let postgres = Self {
            process,
            home,
            port,
            options: options.to_vec(),
        };
        postgres.wait();
        postgres
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database; its URL.
    #[track_caller]
    pub fn create_database(&self, name: &str) -> String {
        run(&mut psql(
            self.port,
            &["-c", &format!("create database {name}")],
        ));
        format!(
            "postgres://app@127.0.0.1:{}/{name}?sslmode=disable",
            self.port
        )
    }

    /// The URL of a database over the cluster's Unix socket.
    pub fn socket_url(&self, name: &str) -> String {
        let data = self.home.path().join("data");
        let (data, port) = (data.display(), self.port);
        format!("postgres://app@/{name}?host={data}&port={port}")
    }

    /// Runs a statement in a database; what it answers.
    #[track_caller]
    pub fn query(&self, database: &str, statement: &str) -> String {
        let target = format!("\\connect {database}");
        let answer = run(&mut psql(self.port, &["-c", &target, "-c", statement]));
        answer.trim().to_owned()
    }

    /// Stops it as a crash does: at once, connections cut, nothing written any more.
    #[track_caller]
    pub fn crash(&mut self) {
        self.process.signal(Signal::QUIT);
        self.process.wait();
    }

    /// Starts it again after a crash, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process = spawn(self.home.path(), self.port, &self.options);
        self.wait();
    }

    /// Stops every process of it (SIGSTOP): connections stay, nobody answers.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Goes on after [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let main = self.process.pid();
        self.process.signal(signal);
        let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children"));
        let children = children.expect("children of PostgreSQL");
        for child in children.split_whitespace() {
            let pid = child.parse().ok().and_then(Pid::from_raw).expect("a pid");
            // One may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    #[track_caller]
    fn wait(&self) {
        eventually("PostgreSQL answers", || {
            let answer = psql(self.port, &["-c", "select 1"]).output();
            answer.is_ok_and(|output| output.status.success())
        });
    }
}

#[track_caller]
fn spawn(home: &Path, port: u16, options: &[&str]) -> Process {
    let data = home.join("data");
    let mut command = as_its_user("postgres");
    command.arg("-D").arg(&data).arg("-k").arg(&data);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "ssl=off"]);
    Process::spawn(command.args(options), &home.join("postgres.log"))
}

/// PostgreSQL refuses to run as root.
fn as_its_user(program: &str) -> Command {
    let program = installed(program);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

fn installed(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    debian
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| Path::new(name).to_owned())
}

/// `psql` as `app` on this port of loopback, which a [`Postgres`] or a proxy before it has.
pub fn psql(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command
        .arg(format!(
            "host=127.0.0.1 port={port} user=app dbname=postgres sslmode=disable gssencmode=disable"
        ))
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1"])
        .args(arguments);
    command
}
