//! Processes, cgroups, containers and a kubelet to attest.

use std::{
    env, fs,
    future::Future,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use attest::{Attestation, Attestors, Config, Process};
use serde_json::Value;
use tokio::time::timeout;

pub(crate) mod kubelet;

/// Whether this test can do what only root can; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Waits for an event; the time is only a bound for a test that fails.
pub(crate) async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), event).await.unwrap()
}

/// Runs the test of this name again, by itself, below `command`; true inside of it.
pub(crate) fn inside(command: &[&str], test: &str) -> bool {
    const INSIDE: &str = "ATTEST_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new(command[0])
        .args(&command[1..])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "no such test: {text}");
    false
}

/// What these attestors say of a process.
pub(crate) async fn attest(config: Config, pid: u32) -> Attestation {
    let process = Process::of_pid(pid).unwrap();
    Attestors::new(config).attest(&process).await
}

/// The reasons of one attestor, failures and others.
pub(crate) fn reasons(attestation: &Attestation, attestor: &str) -> String {
    attestation
        .failures
        .iter()
        .chain(&attestation.not_applicable)
        .filter(|failure| failure.attestor == attestor)
        .map(|failure| failure.reason.clone())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Every name and value is one that the issuer's schema has.
pub(crate) fn assert_in_schema(attributes: &Value) {
    let tree = serde_json::json!({ "workload": attributes });
    policy::Attributes::from_json(&tree).unwrap();
}

/// A child that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// `sleep`, once it is that.
    pub(crate) fn sleep() -> Self {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        while fs::read_to_string(&comm).unwrap() != "sleep\n" {
            std::thread::yield_now();
        }
        Self(child)
    }

    /// A Python program that has `connect()` to a socket of the test, and that socket's
    /// other end once it was called.
    pub(crate) fn python(listener: &Listener, program: &str) -> Self {
        let child = Command::new("python3")
            .arg("-c")
            .arg(program_with_connect(&listener.path, program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// One line of what it says.
    pub(crate) fn line(&mut self) -> String {
        use std::io::Read;
        let mut line = Vec::new();
        let output = self.0.stdout.as_mut().unwrap();
        let mut byte = [0];
        while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn program_with_connect(path: &Path, program: &str) -> String {
    format!(
        "import os, socket, sys, time\ndef connect():\n  s = socket.socket(socket.AF_UNIX)\n  \
         s.connect({:?})\n  return s\n{program}",
        path.to_str().unwrap()
    )
}

/// A socket that workloads connect to.
pub(crate) struct Listener {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let all = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
        fs::set_permissions(&path, all.clone()).unwrap();
        fs::set_permissions(folder.path(), all).unwrap();
        Self {
            folder,
            path,
            listener,
        }
    }

    pub(crate) fn accept(&self) -> UnixStream {
        self.listener.accept().unwrap().0
    }
}

/// A cgroup of the test, with a process in it.
pub(crate) struct Cgroup {
    /// Folders that were made, the outermost first.
    made: Vec<PathBuf>,
    folder: PathBuf,
    /// Its path as `/proc/PID/cgroup` has it.
    pub(crate) path: String,
}

impl Cgroup {
    /// Makes this path in the hierarchy mounted at `root`. `N` stands for a number of
    /// its own.
    pub(crate) fn new(root: &Path, path: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = path.replace("/N", &format!("/attest-{}-{number}", std::process::id()));
        let mut made = Vec::new();
        let mut folder = root.to_owned();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder.push(name);
            if fs::create_dir(&folder).is_ok() {
                made.push(folder.clone());
            }
        }
        Self { made, folder, path }
    }

    /// One that is there already.
    pub(crate) fn at(folder: &Path) -> Self {
        Self {
            made: Vec::new(),
            folder: folder.to_owned(),
            path: String::new(),
        }
    }

    /// The file that takes the number of a process.
    pub(crate) fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    pub(crate) fn hold(&self, pid: u32) {
        fs::write(self.procs(), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let Some(above) = self.made.first().and_then(|folder| folder.parent()) else {
            return;
        };
        for pid in fs::read_to_string(self.procs()).unwrap_or_default().lines() {
            let _ = fs::write(above.join("cgroup.procs"), pid);
        }
        for folder in self.made.iter().rev() {
            // A process that has just ended leaves its cgroup a moment later.
            for _ in 0..1000 {
                match fs::remove_dir(folder) {
                    Err(error) if error.raw_os_error() == Some(16) => std::thread::yield_now(),
                    _ => break,
                }
            }
        }
    }
}

/// Where a hierarchy is mounted, if the test may make cgroups there.
pub(crate) fn hierarchy(is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let (r#type, options) = (file_system.next()?, file_system.nth(1)?);
        let fields: Vec<&str> = mount.split(' ').collect();
        (fields[3] == "/" && is_it(r#type, options)).then(|| PathBuf::from(fields[4]))
    })?;
    let probe = root.join(format!("attest-probe-{}", std::process::id()));
    fs::create_dir(&probe).ok()?;
    fs::remove_dir(&probe).unwrap();
    Some(root)
}

/// The unified hierarchy; says so if there is none that can be written.
pub(crate) fn unified() -> Option<PathBuf> {
    let root = hierarchy(|r#type, _| r#type == "cgroup2");
    if root.is_none() {
        eprintln!("SKIPPED: needs a cgroup2 file system that can be written");
    }
    root
}
