//! A real Envoy that has its certificates and trust bundles from here.
//!
//! One process with two listeners: `in` takes plain bytes and dials `out` over mutual
//! TLS; `out` takes them, and hands them to an echo. So both sides of TLS are Envoy's,
//! and all secrets are ours. Beside it, a client of ours speaks to `out` directly.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use identity::{
    ClientOptions, ClientTls, IdentitySource, Serial, TrustBundle, TrustBundleSet, testing::TestCa,
    tls::AnyServer,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::support::{World, soon};

const HOUR: Duration = Duration::from_secs(3600);

/// Envoy's own binary: the wrapper beside Python cannot be stopped by a signal.
fn binary() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/lib");
    let pythons = std::fs::read_dir(&lib).into_iter().flatten().flatten();
    let found = pythons
        .map(|python| python.path().join("site-packages/envoy/_bin"))
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|file| file.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("envoy"))
        });
    if found.is_none() {
        eprintln!(
            "SKIPPED: no Envoy in {}: `make peers` installs it",
            lib.display()
        );
    }
    found
}

/// Stopped when dropped.
struct Envoy {
    process: Child,
    log: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Envoy {
    fn start(binary: &Path, dir: &Path, api_type: &str, metadata: &Value, optional: bool) -> Self {
        let file = dir.join("envoy.json");
        let config = config(dir, api_type, metadata, optional);
        std::fs::write(&file, config.to_string()).unwrap();
        let log = dir.join("envoy.log");
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new(binary)
            .args([
                "--use-dynamic-base-id",
                "--disable-hot-restart",
                "--concurrency",
                "1",
            ])
            .args(["--log-level", "warn"])
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { process, log }
    }
}

fn config(dir: &Path, api_type: &str, metadata: &Value, optional: bool) -> Value {
    let pipe = |name: &str| json!({"pipe": {"path": dir.join(name)}});
    let sds = |name: &str| {
        json!({"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": {
            "api_type": api_type, "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "workload_api"}}],
        }}})
    };
    // Envoy wants a certificate where it is to match its names.
    let (bundle, matchers) = match optional {
        true => ("ROOTCA", json!({})),
        false => (
            "ALL",
            json!({"match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://"}},
            ]}),
        ),
    };
    let common = json!({
        "tls_certificate_sds_secret_configs": [sds("default")],
        "combined_validation_context": {
            "default_validation_context": matchers,
            "validation_context_sds_secret_config": sds(bundle),
        },
    });
    let tls = |kind: &str, extra: Value| {
        let mut config = json!({
            "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"),
            "common_tls_context": common,
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
    };
    let listener = |name: &str, to: &str, socket: Option<Value>| {
        let mut chain = json!({"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": to, "cluster": to,
            },
        }]});
        if let Some(socket) = socket {
            chain["transport_socket"] = socket;
        }
        json!({"name": name, "address": pipe(name), "filter_chains": [chain]})
    };
    let cluster = |name: &str, socket: &str, extra: Value| {
        let mut cluster = json!({
            "name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": pipe(socket)}},
            ]}]},
        });
        cluster
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        cluster
    };
    let http2 = json!({"typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    }});
    let upstream = json!({"transport_socket": tls("UpstreamTlsContext", json!({}))});
    let required = json!({"require_client_certificate": !optional});
    json!({
        "node": {"id": "test", "cluster": "test", "metadata": metadata},
        "static_resources": {
            "listeners": [
                listener("in", "out", None),
                listener("out", "echo", Some(tls("DownstreamTlsContext", required))),
            ],
            "clusters": [
                cluster("workload_api", "wl.sock", http2),
                cluster("out", "out", upstream),
                cluster("echo", "echo", json!({})),
            ],
        },
    })
}

/// Sends back what comes.
fn serve_echo(dir: &Path) {
    let listener = UnixListener::bind(dir.join("echo")).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
}

async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let exchange = async {
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"ping");
        Ok(())
    };
    timeout(Duration::from_secs(5), exchange).await?
}

/// Through both listeners: mutual TLS of Envoy with Envoy.
async fn through(dir: &Path) -> io::Result<()> {
    ping(&mut UnixStream::connect(dir.join("in")).await?).await
}

/// To the inner listener as one of `ca`, trusting `server`; the serial of its certificate.
async fn directly(dir: &Path, ca: &TestCa, server: TrustBundle) -> io::Result<Serial> {
    let source = IdentitySource::with(ca.svid("/client", HOUR), TrustBundleSet::new([server]));
    let tls = ClientTls::new(source, ClientOptions::default());
    let config = tls.config().map_err(io::Error::other)?;
    let stream = UnixStream::connect(dir.join("out")).await?;
    let name = ClientTls::server_name();
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    ping(&mut stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let leaf = identity::Leaf::parse(&chain[0]).map_err(io::Error::other)?;
    Ok(leaf.serial().clone())
}

/// What Envoy does soon, since nothing tells when it has.
macro_rules! eventually {
    ($what:expr, $pattern:pat) => {
        soon(async {
            loop {
                match $what.await {
                    outcome @ $pattern => break outcome,
                    _ => sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await
    };
}

async fn mutual_tls_through_a_rotation_and_federation(api_type: &str) {
    let Some(binary) = binary() else {
        return;
    };
    let world = World::start();
    let dir = world.dir.path();
    let (partner, stranger) = (TestCa::new("two.example"), TestCa::new("three.example"));
    world.backend.federate(vec![partner.bundle()]);
    serve_echo(dir);
    let _envoy = Envoy::start(&binary, dir, api_type, &json!({}), false);
    eventually!(through(dir), Ok(())).unwrap();

    // The partner's workloads are known by their own trust domain's bundle, others not.
    let own = || world.backend.ca().bundle();
    let before = directly(dir, &partner, own()).await.unwrap();
    directly(dir, &stranger, own()).await.unwrap_err();
    // Nor one of the own name that another CA has signed.
    directly(dir, &TestCa::new("one.example"), own())
        .await
        .unwrap_err();

    // New SVIDs, and then a new CA: Envoy follows on both sides.
    world.backend.rotate();
    let is_new = || async {
        let serial = directly(dir, &partner, own()).await;
        serial.ok().filter(|serial| *serial != before).ok_or(())
    };
    eventually!(is_new(), Ok(_)).unwrap();
    through(dir).await.unwrap();
    let old = world.backend.ca();
    world.backend.replace_ca();
    eventually!(directly(dir, &partner, own()), Ok(_)).unwrap();
    eventually!(through(dir), Ok(())).unwrap();
    eventually!(directly(dir, &old, own()), Err(_)).unwrap_err();

    // The end of federation cuts the partner off, and nobody else.
    world.backend.federate(vec![]);
    eventually!(directly(dir, &partner, own()), Err(_)).unwrap_err();
    through(dir).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_speaks_mutual_tls_by_state_of_the_world() {
    mutual_tls_through_a_rotation_and_federation("GRPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_speaks_mutual_tls_by_delta() {
    mutual_tls_through_a_rotation_and_federation("DELTA_GRPC").await;
}

/// The SPIFFE validator always wants a client certificate: an Envoy that does not asks for
/// plain CA certificates.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_lets_clients_without_certificate_in_where_it_asks_for_that() {
    let Some(binary) = binary() else {
        return;
    };
    let world = World::start();
    let dir = world.dir.path();
    serve_echo(dir);
    let metadata = json!({"disable_spiffe_cert_validation": true});
    let _envoy = Envoy::start(&binary, dir, "GRPC", &metadata, true);
    eventually!(through(dir), Ok(())).unwrap();
    let own = world.backend.ca().bundle();
    directly(dir, &world.backend.ca(), own.clone())
        .await
        .unwrap();
    directly(dir, &TestCa::new("two.example"), own.clone())
        .await
        .unwrap_err();

    let config = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    let stream = UnixStream::connect(dir.join("out")).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector
        .connect(ClientTls::server_name(), stream)
        .await
        .unwrap();
    ping(&mut stream).await.unwrap();
}
