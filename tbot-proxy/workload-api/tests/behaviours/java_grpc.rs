//! gRPC Java over Netty, and the JDK's own cryptography, as Debian has them. They come over
//! TCP: that Netty has no Unix sockets.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio::sync::mpsc;

use crate::support::{World, soon};

/// What gRPC Java is made of, in Debian's folder.
const LIBRARIES: [&str; 18] = [
    "grpc-api",
    "grpc-context",
    "grpc-core",
    "grpc-netty",
    "grpc-stub",
    "guava",
    "jctools-core",
    "netty-buffer",
    "netty-codec",
    "netty-codec-http",
    "netty-codec-http2",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "opencensus-api",
    "perfmark-api",
    "protobuf",
];

/// Where they are; `None`, loudly, if one is not there.
fn class_path() -> Option<String> {
    let mut paths = Vec::new();
    for library in LIBRARIES {
        let path = PathBuf::from(format!("/usr/share/java/{library}.jar"));
        if !path.exists() {
            eprintln!("SKIPPED: no {}: `make test` installs it", path.display());
            return None;
        }
        paths.push(path.display().to_string());
    }
    Some(paths.join(":"))
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_client_verifies_what_it_gets_and_follows_a_rotation() {
    let Some(libraries) = class_path() else {
        return;
    };
    let (mut world, address) = World::over_tcp().await;
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/SpiffeClient.java");
    let compiled = Command::new("javac")
        .args(["-cp", &libraries, "-d"])
        .arg(folder.path())
        .arg(source)
        .status();
    assert!(compiled.unwrap().success());
    let class_path = format!("{libraries}:{}", folder.path().display());
    let mut process = Command::new("java")
        .args(["-cp", &class_path, "SpiffeClient", &address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let _process = Process(process);
    let (tell, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in output.lines() {
            let _ = tell.send(line.unwrap());
        }
    });
    let mut next = async || soon(told.recv()).await.expect("the client ended");
    assert_eq!(next().await, "without metadata: INVALID_ARGUMENT");
    let first = next().await;
    let id = "spiffe://one.example/app";
    assert!(first.starts_with(&format!("svid: {id} {id} ")), "{first}");
    world.backend.rotate();
    let second = next().await;
    assert!(second.starts_with(&format!("svid: {id} {id} ")), "{second}");
    assert_ne!(second, first, "another serial number");
    world.stop();
    assert_eq!(next().await, "ended: UNAVAILABLE");
}
