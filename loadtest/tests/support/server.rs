//! What the behaviour tests load: a real tokio-rustls echo server in this process, with
//! certificates of `loadtest certs`, and the real binary run against it.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// What a server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) full: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Seen {
    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }
}

/// An mTLS echo server; it ends with the test process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) certs: tempfile::TempDir,
}

/// What a server does beside echoing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behaviour {
    /// Whether TLS 1.3 tickets are sent.
    pub(crate) tickets: bool,
    /// Pause before the echo that carries this byte to this count, once.
    pub(crate) stall: Option<(u64, Duration)>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tickets: true,
            stall: None,
        }
    }
}

impl Server {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let certs = tempfile::tempdir().unwrap();
        loadtest::certs::write(certs.path(), "bench.test").unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(certs.path(), behaviour)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(tcp, acceptor.clone(), shared.clone(), behaviour));
                }
            });
        });
        Self {
            address,
            seen,
            certs,
        }
    }

    /// The path of a certificate file.
    pub(crate) fn file(&self, name: &str) -> String {
        self.certs.path().join(name).to_str().unwrap().to_owned()
    }

    /// Options for TLS with the client's certificate.
    pub(crate) fn tls_options(&self) -> Vec<String> {
        let target = self.address.to_string();
        let (cert, key, ca) = (
            self.file("client.pem"),
            self.file("client.key"),
            self.file("ca.pem"),
        );
        [
            "--target", &target, "--tls", "--cert", &cert, "--key", &key, "--ca", &ca,
        ]
        .map(str::to_owned)
        .into()
    }

    /// Runs `loadtest MODE` against this server with JSON output; fails the test if that fails.
    pub(crate) fn load(&self, mode: &str, options: &[&str]) -> Value {
        let tls = self.tls_options();
        let all: Vec<&str> = tls
            .iter()
            .map(String::as_str)
            .chain(options.iter().copied())
            .collect();
        report(&run(mode, &all))
    }
}

/// Runs the binary with `--json`.
pub(crate) fn run(mode: &str, options: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_loadtest");
    Command::new(binary)
        .arg(mode)
        .args(options)
        .arg("--json")
        .output()
        .unwrap()
}

/// The JSON of a successful run.
pub(crate) fn report(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn server_config(certs: &Path, behaviour: Behaviour) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certs.join("ca.pem")).unwrap())
        .unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certs.join("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(certs.join("server.key")).unwrap(),
        )
        .unwrap();
    config.send_tls13_tickets = if behaviour.tickets { 2 } else { 0 };
    config
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>, behaviour: Behaviour) {
    tcp.set_nodelay(true).unwrap();
    let Ok(mut stream) = acceptor.accept(tcp).await else {
        seen.failed.fetch_add(1, Ordering::SeqCst);
        return;
    };
    let kind = stream.get_ref().1.handshake_kind();
    let counter = if kind == Some(HandshakeKind::Resumed) {
        &seen.resumed
    } else {
        &seen.full
    };
    counter.fetch_add(1, Ordering::SeqCst);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n as u64,
        };
        let before = seen.bytes.fetch_add(n, Ordering::SeqCst);
        if let Some((_, pause)) = behaviour
            .stall
            .filter(|(at, _)| (before..before + n).contains(at))
        {
            tokio::time::sleep(pause).await;
        }
        if stream.write_all(&buffer[..n as usize]).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}
