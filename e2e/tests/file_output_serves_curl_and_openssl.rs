//! The files that the agent writes are what other software expects: OpenSSL
//! verifies chain and connects with them, curl reaches the inbound proxy with them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{
    Agent, Issuer, Process, eventually, free_port, inbound, run, run_expecting_failure, x509_output,
};

struct Scene {
    _issuer: Issuer,
    backend: Agent,
    _client: Agent,
    _site: Process,
    mtls: u16,
    files: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        let issuer = Issuer::start();
        let (backend_token, client_token) = (issuer.register("backend"), issuer.register("client"));
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("index.html"), "hello from http.server\n").unwrap();
        let (http, mtls) = (free_port(), free_port());
        let site = Process::spawn(
            Command::new("python3")
                .args([
                    "-m",
                    "http.server",
                    &http.to_string(),
                    "--bind",
                    "127.0.0.1",
                ])
                .arg("--directory")
                .arg(files.path()),
            &files.path().join("http.log"),
        );
        eventually("http.server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", http)).is_ok()
        });
        let backend = Agent::start(
            &issuer,
            &backend_token,
            &[inbound(
                "backend",
                mtls,
                &format!("127.0.0.1:{http}"),
                &["spiffe://e2e.example/client"],
            )],
        );
        let client = Agent::start(
            &issuer,
            &client_token,
            &[x509_output("client", &files.path().join("svid"))],
        );
        Self {
            _issuer: issuer,
            backend,
            _client: client,
            _site: site,
            mtls,
            files,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join("svid").join(name)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn openssl_verifies_the_chain() {
    let scene = Scene::start();
    run(Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
        .arg(scene.file("bundle.pem"))
        .arg(scene.file("svid.pem")));
    let text = run(Command::new("openssl")
        .args([
            "x509",
            "-noout",
            "-ext",
            "subjectAltName,basicConstraints,keyUsage,extendedKeyUsage",
        ])
        .arg("-in")
        .arg(scene.file("svid.pem")));
    for part in [
        "URI:spiffe://e2e.example/client",
        "CA:FALSE",
        "Digital Signature",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(mode(&scene.file("svid_key.pem")), 0o600);
    assert_eq!(mode(&scene.file("").join(".")), 0o700);
}

#[test]
fn curl_reaches_the_inbound_proxy_with_the_files() {
    let scene = Scene::start();
    let url = format!("https://127.0.0.1:{}/", scene.mtls);
    // The server's certificate names no host, which curl would insist on; that its
    // chain verifies is what s_client checks below.
    let curl = |with_identity: bool| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--max-time", "30", "--insecure", &url]);
        if with_identity {
            command.arg("--cert").arg(scene.file("svid.pem"));
            command.arg("--key").arg(scene.file("svid_key.pem"));
        }
        command
    };
    assert!(run(&mut curl(true)).contains("hello from http.server"));
    run_expecting_failure(&mut curl(false));
    scene
        .backend
        .connection("the record of curl's request", |r| {
            r["peer_id"] == "spiffe://e2e.example/client" && r["reason"] == "complete"
        });
    scene
        .backend
        .connection("the record of the attempt without identity", |r| {
            r["peer_id"].is_null() && r["reason"] == "peer_unverified"
        });
}

#[test]
fn s_client_connects_and_verifies_the_servers_chain() {
    let scene = Scene::start();
    let text = run(Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", scene.mtls)])
        .args(["-verify_return_error", "-CAfile"])
        .arg(scene.file("bundle.pem"))
        .arg("-cert")
        .arg(scene.file("svid.pem"))
        .arg("-key")
        .arg(scene.file("svid_key.pem")));
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    assert!(text.contains("TLSv1.3"), "{text}");
}
