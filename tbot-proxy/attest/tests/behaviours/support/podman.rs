//! A Podman of its own: real containers, and its API on a socket.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Listener, Running, is_root, program_with_connect};

pub(crate) struct Podman {
    folder: tempfile::TempDir,
    service: Option<Child>,
    /// Of its API.
    pub(crate) socket: PathBuf,
}

/// The image that [`Podman::new`] makes.
pub(crate) const IMAGE: &str = "localhost/attest-test:1";

impl Podman {
    /// None if it cannot run here; says so.
    pub(crate) fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        if Command::new("podman").arg("--version").output().is_err() {
            eprintln!("SKIPPED: podman is not installed (`make peers` does it)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::new();
        let socket = listener.path.clone();
        let mut podman = Self {
            folder,
            service: None,
            socket,
        };
        podman.import();
        podman.serve(listener);
        Some(podman)
    }

    /// An image of BusyBox and the places where a host's programs are mounted.
    fn import(&self) {
        let root = self.folder.path().join("image");
        fs::create_dir_all(root.join("usr")).unwrap();
        for name in ["agent", "tmp", "proc", "sys", "dev", "etc"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("busybox")).unwrap();
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut import = self.command();
        import
            .args(["import", "-", IMAGE])
            .stdin(tar.stdout.take().unwrap());
        succeed(&mut import);
        assert!(tar.wait().unwrap().success());
    }

    /// Hands it a socket that listens already, so nobody has to wait for it.
    fn serve(&mut self, listener: Listener) {
        let (folder, fd) = listener.into_fd();
        // Its files go with this folder's.
        let _ = folder.keep();
        let mut service = Command::new("sh");
        service.args([
            "-c",
            "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null",
            "sh",
        ]);
        service.arg("podman").args(self.options());
        service
            .args(["system", "service", "--time=0"])
            .stdin(fd)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.service = Some(service.spawn().unwrap());
    }

    fn options(&self) -> Vec<String> {
        let folder = |name| self.folder.path().join(name).to_str().unwrap().to_owned();
        [
            "--root",
            &folder("root"),
            "--runroot",
            &folder("run"),
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--runtime",
            "/usr/sbin/runc",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.args(self.options());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        succeed(self.command().args(arguments))
    }

    /// A container with a Python program that has `connect()` to a socket of the test.
    /// Its id.
    pub(crate) fn start(&self, listener: &Listener, options: &[&str], program: &str) -> String {
        let volume = format!("{}:/agent", listener.folder.path().display());
        let program = program_with_connect(Path::new("/agent/socket"), program);
        let mut all = vec![
            "run",
            "--detach",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            "--volume=/usr:/usr:ro",
            "--volume",
            &volume,
        ];
        all.extend(options);
        all.extend([IMAGE, "/usr/bin/python3", "-c", &program]);
        self.run(&all)
    }

    /// Ends its API, as an outage would.
    pub(crate) fn end_service(&mut self) {
        if let Some(service) = self.service.take() {
            drop(Running(service));
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.end_service();
        let _ = self.command().args(["rm", "-fa", "-t", "0"]).output();
        let _ = self.command().args(["pod", "rm", "-fa"]).output();
        if let Some(folder) = self.socket.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
