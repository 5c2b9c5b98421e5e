use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A Podman of its own: real containers, and its API, and Docker's, on a socket.
#[derive(Debug)]
pub struct Podman {
    service: Option<Child>,
    folder: TempDir,
}

impl Podman {
    /// Starts its API, and makes an image of BusyBox (`/busybox`) that has places for a
    /// host's programs. None if it cannot run here; says so.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: containers need root");
            return None;
        }
        if Command::new("podman").arg("--version").output().is_err() {
            eprintln!("SKIPPED: podman is not installed (`make peers` does it)");
            return None;
        }
        let mut podman = Self {
            service: None,
            folder: TempDir::new().expect("temporary directory"),
        };
        podman.import();
        podman.serve();
        Some(podman)
    }

    /// The socket of its API.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// Runs `podman` with these arguments; what it says.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(self.command().args(arguments))
    }

    /// Runs a program in a new container and waits for its end; what it says. The host's
    /// `/usr` is there, read-only.
    #[track_caller]
    pub fn container(&self, options: &[&str], program: &[&str]) -> String {
        self.container_of(Self::IMAGE, options, program)
    }

    /// As [`Self::container`], of another image.
    #[track_caller]
    pub fn container_of(&self, image: &str, options: &[&str], program: &[&str]) -> String {
        let fixed = [
            "run",
            "--network=none",
            // The defaults are above what a container may ask for here.
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            "--volume=/usr:/usr:ro",
        ];
        self.run(&[&fixed, options, &[image], program].concat())
    }

    /// The image of its containers.
    pub const IMAGE: &str = "localhost/e2e:1";

    /// Ends its API, as an outage would.
    pub fn end_service(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }

    fn import(&self) {
        let root = self.folder.path().join("image");
        for name in ["usr", "agent", "tmp", "proc", "sys", "dev", "etc"] {
            fs::create_dir_all(root.join(name)).expect("folder of the image");
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).expect("link of the image");
        }
        fs::copy("/bin/busybox", root.join("busybox")).expect("busybox (package busybox-static)");
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar");
        let image = tar.stdout.take().expect("its output");
        succeed(
            self.command()
                .args(["import", "-", Self::IMAGE])
                .stdin(image),
        );
        assert!(tar.wait().expect("tar").success());
    }

    /// Hands it a socket that listens already, so nobody has to wait for it.
    fn serve(&mut self) {
        let listener = UnixListener::bind(self.socket()).expect("socket of Podman's API");
        let mut service = Command::new("sh");
        service
            .args([
                "-c",
                "export LISTEN_PID=$$ LISTEN_FDS=1; exec podman \"$@\" 3<&0 </dev/null",
                "sh",
            ])
            .args(self.options())
            .args(["system", "service", "--time=0"])
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.service = Some(service.spawn().expect("Podman's API"));
    }

    fn options(&self) -> Vec<String> {
        let folder = |name: &str| path(&self.folder.path().join(name));
        [
            "--root",
            &folder("root"),
            "--runroot",
            &folder("run"),
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
            "--runtime=/usr/sbin/runc",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.args(self.options());
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.end_service();
        let _ = self.command().args(["rm", "-fa", "-t", "0"]).output();
        let _ = self.command().args(["pod", "rm", "-fa"]).output();
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("podman");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
