use std::{
    ffi::OsStr,
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually_some;

/// Path of one of our binaries, beside the running test.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let folder = test.parent().and_then(Path::parent).expect("target folder");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --bins` first",
        path.display()
    );
    path
}

/// A TCP port that is free at this moment on every address. Below the range from which
/// the kernel takes ports for outgoing connections (32768 to 60999): one of those, of any
/// test beside this one, would keep a listener of the same port from being made.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u64> = 12_000..32_000;
    // Differs by call and by process.
    let random = || RandomState::new().build_hasher().finish();
    let candidates = std::iter::repeat_with(|| PORTS.start + random() % (PORTS.end - PORTS.start));
    candidates
        .filter_map(|port| u16::try_from(port).ok())
        .take(1_000)
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a free port")
}

/// Runs a command to its end; its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8 output")
}

/// Runs a command that must fail; its exit code and standard error.
#[track_caller]
pub fn run_expecting_failure(command: &mut Command) -> Exit {
    let output = output(command);
    assert!(
        !output.status.success(),
        "{command:?} was meant to fail: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Exit {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn output(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// How a command failed.
#[derive(Debug)]
pub struct Exit {
    /// Exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard error.
    pub stderr: String,
}

/// A running process whose output goes to a file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with standard output and error appended to `log`.
    #[track_caller]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("second handle of the log"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("a signal to our own child");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let log = self.log.clone();
        eventually_some(
            &format!("the end of the process of {}", log.display()),
            || self.child.try_wait().expect("wait"),
        )
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let name = self.log.file_name().and_then(OsStr::to_str).unwrap_or("");
            eprintln!("---- {name}\n{}", self.log());
        }
    }
}
