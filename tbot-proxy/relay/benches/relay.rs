//! CPU time of a proxy per full handshake, per request and per GiB, and its memory per idle connection:
//! this crate beside tokio-rustls with `copy_bidirectional`, in alternating rounds.
//!
//! The proxy is a process of its own (this program, started again), so that its CPU time and memory are
//! not mixed with the load and the application, which live here. Both proxies get the same configuration: TLS 1.3,
//! AES-128-GCM (`SUITE=256` for AES-256-GCM), X25519, ECDSA P-256, client certificates, no tickets, no chain cache. `ROUNDS=1` for a quick look, `ONLY=request`
//! (a part of a line's name) for one line.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use mimalloc::MiMalloc;
use relay::{Counters, Deadlines};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::aws_lc_rs::{
        cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384},
        default_provider,
        kx_group::X25519,
    },
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

#[path = "../tests/support/support.rs"]
mod support;

use support::{Pki, localhost};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const HANDSHAKES: u64 = 4_000;
const REQUESTS: u64 = 200_000;
const CONNECTIONS: u64 = 32;
const BULK: u64 = 3 << 30;
const IDLE: u64 = 2_000;
const KINDS: [&str; 2] = ["naive", "relay"];

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match arguments.iter().position(|argument| argument == "serve") {
        Some(at) => runtime.block_on(serve(
            &arguments[at + 1],
            &arguments[at + 2],
            &arguments[at + 3],
        )),
        None => runtime.block_on(compare()),
    }
}

// The proxy.

async fn serve(kind: &str, backend: &str, pki: &str) {
    let config = Arc::new(server_config(pki));
    let backend: SocketAddr = backend.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let config = config.clone();
        if kind == "relay" {
            tokio::spawn(ours(socket, config, backend));
        } else {
            tokio::spawn(naive(socket, config, backend));
        }
    }
}

async fn ours(socket: TcpStream, config: Arc<ServerConfig>, backend: SocketAddr) {
    socket.set_nodelay(true).unwrap();
    let Ok(tls) = relay::accept(socket.into(), config).await else {
        return;
    };
    let plain = TcpStream::connect(backend).await.unwrap();
    plain.set_nodelay(true).unwrap();
    // As a proxy has it: a deadline, and the relay boxed apart from what came before.
    let deadlines = Deadlines {
        idle: Some(Duration::from_secs(3600)),
        half_close: Some(Duration::from_secs(60)),
    };
    relay::relay(tls, plain.into(), deadlines, Arc::new(Counters::default())).await;
}

async fn naive(socket: TcpStream, config: Arc<ServerConfig>, backend: SocketAddr) {
    socket.set_nodelay(true).unwrap();
    let Ok(mut tls) = TlsAcceptor::from(config).accept(socket).await else {
        return;
    };
    let mut plain = TcpStream::connect(backend).await.unwrap();
    plain.set_nodelay(true).unwrap();
    let _ = copy_bidirectional(&mut tls, &mut plain).await;
}

fn server_config(pki: &str) -> ServerConfig {
    let pem = fs::read(pki).unwrap();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain[1].clone()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![chain[0].clone()], key)
        .unwrap();
    config.send_tls13_tickets = 0;
    config
}

// The load.

/// What the application behind the proxy does; also how many bytes a connection carries.
#[derive(Clone, Copy)]
enum App {
    Echo,
    Sink,
    Source,
}

async fn application(app: App) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 256 << 10];
                match app {
                    App::Echo => loop {
                        match socket.read(&mut buffer[..4096]).await {
                            Ok(0) | Err(_) => break,
                            Ok(count) => socket.write_all(&buffer[..count]).await.unwrap(),
                        }
                    },
                    App::Sink => {
                        while matches!(socket.read(&mut buffer).await, Ok(count) if count > 0) {}
                    }
                    App::Source => while socket.write_all(&buffer).await.is_ok() {},
                }
            });
        }
    });
    address
}

struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(kind: &str, backend: SocketAddr, pki: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["serve", kind, &backend.to_string(), pki])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            address: line.trim().parse().unwrap(),
            child,
        }
    }

    /// CPU time so far, in nanoseconds, of all threads (`/proc/PID/task/TID/schedstat`).
    fn cpu(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let time = |path: std::path::PathBuf| -> u64 {
            let stat = fs::read_to_string(path.join("schedstat")).unwrap();
            stat.split_whitespace().next().unwrap().parse().unwrap()
        };
        tasks.map(|task| time(task.unwrap().path())).sum()
    }

    /// Resident memory that is the process's own, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("RssAnon"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Load {
    connector: TlsConnector,
    pki: String,
}

impl Load {
    async fn connect(&self, proxy: &Proxy) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(proxy.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        self.connector
            .clone()
            .connect(localhost(), socket)
            .await
            .unwrap()
    }

    /// Microseconds per connection: handshake, one exchange of a byte, close.
    async fn handshake(self: Arc<Self>, kind: &str) -> f64 {
        let proxy = Arc::new(Proxy::start(kind, application(App::Echo).await, &self.pki));
        let mut before = 0;
        for count in [200, HANDSHAKES] {
            before = proxy.cpu();
            let mut tasks = JoinSet::new();
            for _ in 0..8 {
                let (this, proxy) = (self.clone(), proxy.clone());
                tasks.spawn(async move {
                    for _ in 0..count / 8 {
                        let mut tls = this.connect(&proxy).await;
                        tls.write_all(b"x").await.unwrap();
                        tls.read_u8().await.unwrap();
                        tls.shutdown().await.unwrap();
                        let mut rest = Vec::new();
                        let _ = tls.read_to_end(&mut rest).await;
                    }
                });
            }
            tasks.join_all().await;
        }
        (proxy.cpu() - before) as f64 / HANDSHAKES as f64 / 1e3
    }

    /// Microseconds per request of 128 bytes.
    async fn requests(self: Arc<Self>, kind: &str) -> f64 {
        let proxy = Arc::new(Proxy::start(kind, application(App::Echo).await, &self.pki));
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(self.connect(&proxy).await);
        }
        let mut before = 0;
        for count in [REQUESTS / 20, REQUESTS] {
            before = proxy.cpu();
            let mut tasks = JoinSet::new();
            for mut tls in connections.drain(..) {
                tasks.spawn(async move {
                    let mut answer = [0; 128];
                    for _ in 0..count / CONNECTIONS {
                        tls.write_all(&[1; 128]).await.unwrap();
                        tls.read_exact(&mut answer).await.unwrap();
                    }
                    tls
                });
            }
            connections = tasks.join_all().await;
        }
        (proxy.cpu() - before) as f64 / REQUESTS as f64 / 1e3
    }

    /// Seconds per GiB from the TLS side (`App::Sink`) or to it (`App::Source`).
    async fn bulk(self: Arc<Self>, kind: &str, app: App) -> f64 {
        let proxy = Proxy::start(kind, application(app).await, &self.pki);
        let mut tls = self.connect(&proxy).await;
        let mut buffer = vec![0; 256 << 10];
        let before = proxy.cpu();
        let mut moved = 0;
        while moved < BULK {
            moved += match app {
                App::Source => tls.read(&mut buffer).await.unwrap() as u64,
                _ => {
                    tls.write_all(&buffer).await.unwrap();
                    buffer.len() as u64
                }
            };
        }
        (proxy.cpu() - before) as f64 / 1e9 / (moved as f64 / f64::from(1 << 30))
    }

    /// KiB per connection that has carried a request and is idle.
    async fn idle(self: Arc<Self>, kind: &str) -> f64 {
        let proxy = Proxy::start(kind, application(App::Echo).await, &self.pki);
        let mut connections = Vec::new();
        let mut before = 0;
        for at in 0..IDLE + 50 {
            // After the first 50 the process has its threads, buffers and tables.
            if at == 50 {
                before = proxy.memory();
            }
            let mut tls = self.connect(&proxy).await;
            tls.write_all(&[1; 128]).await.unwrap();
            tls.read_exact(&mut [0; 128]).await.unwrap();
            connections.push(tls);
        }
        sleep(Duration::from_secs(1)).await;
        (proxy.memory() - before) as f64 / IDLE as f64
    }
}

fn client_config(pki: &Pki) -> ClientConfig {
    let mut config = pki.client();
    let mut provider = default_provider();
    provider.kx_groups = vec![X25519];
    provider.cipher_suites = match env::var("SUITE").as_deref() {
        Ok("256") => vec![TLS13_AES_256_GCM_SHA384],
        _ => vec![TLS13_AES_128_GCM_SHA256],
    };
    let resolver = config.client_auth_cert_resolver.clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca.clone()).unwrap();
    config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver);
    config.resumption = Resumption::disabled();
    config
}

async fn compare() {
    let pki = Pki::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki.pem");
    fs::write(
        &path,
        format!("{}{}{}", pki.leaf_pem, pki.ca_pem, pki.key_pem),
    )
    .unwrap();
    let load = Arc::new(Load {
        connector: TlsConnector::from(Arc::new(client_config(&pki))),
        pki: path.to_str().unwrap().to_owned(),
    });
    let rounds: usize = env::var("ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    println!(
        "{:<34}{:>10}{:>10}{:>8}",
        "CPU or memory of the proxy", "naive", "relay", "ratio"
    );
    for what in [
        "µs / full handshake",
        "µs / request, 32 conns",
        "s / GiB from TLS",
        "s / GiB to TLS",
        "KiB / idle connection",
    ] {
        if env::var("ONLY").is_ok_and(|only| !what.contains(&only)) {
            continue;
        }
        let mut measured = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (kind, measured) in KINDS.iter().zip(&mut measured) {
                let load = load.clone();
                measured.push(match what {
                    "µs / full handshake" => load.handshake(kind).await,
                    "µs / request, 32 conns" => load.requests(kind).await,
                    "s / GiB from TLS" => load.bulk(kind, App::Sink).await,
                    "s / GiB to TLS" => load.bulk(kind, App::Source).await,
                    _ => load.idle(kind).await,
                });
            }
        }
        let [naive, relay] = measured.map(|mut measured| {
            measured.sort_by(f64::total_cmp);
            measured[measured.len() / 2]
        });
        println!("{what:<34}{naive:>10.2}{relay:>10.2}{:>8.2}", relay / naive);
    }
}
