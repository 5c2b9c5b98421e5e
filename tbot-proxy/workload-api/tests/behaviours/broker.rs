//! The Broker API, asked by the `spiffe` crate's client over our TLS.

use std::{
    collections::BTreeSet, fs::Permissions, io, os::unix::fs::PermissionsExt as _, path::Path,
    sync::Arc, time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use identity::{
    ClientOptions, ClientTls, IdentitySource, TrustBundle, TrustBundleSet, testing::TestCa,
};
use spiffe::broker_api::{
    SecurityHeader,
    pb::spiffe::broker::{
        FetchJwtsvidRequest, KubernetesObjectKey, KubernetesObjectReference, KubernetesObjectType,
        SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest, SubscribeToX509svidRequest,
        WorkloadPidReference, WorkloadReference, api_client::ApiClient,
    },
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt as _;
use workload_api::{
    Denied, Listener,
    broker::{BrokerServer, Options},
    testing::{KNOWN_PID, KNOWN_POD, TestBackend},
};

use crate::support::soon;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    backend: Arc<TestBackend>,
    ca: TestCa,
    identity: Arc<IdentitySource>,
    address: String,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

type Client = ApiClient<InterceptedService<Channel, SecurityHeader>>;

impl World {
    async fn start() -> Self {
        Self::with(false, Options::default()).await
    }

    /// A server that knows the broker `/broker`.
    async fn with(tcp: bool, options: Options) -> Self {
        let backend = TestBackend::new("one.example", &[("/app", "internal"), ("/other", "")]);
        let ca = backend.ca();
        let own = TrustBundleSet::new([ca.bundle()]);
        let identity = IdentitySource::with(ca.svid("/agent", HOUR), own);
        let options = Options {
            allowed: BTreeSet::from(["spiffe://one.example/broker".parse().unwrap()]),
            ..options
        };
        let dir = tempfile::tempdir().unwrap();
        let listener = match tcp {
            true => Listener::bind_tcp("127.0.0.1:0".parse().unwrap())
                .await
                .unwrap(),
            false => Listener::bind_unix(&dir.path().join("broker.sock"), 0o600).unwrap(),
        };
        let address = listener.uri().unwrap();
        let server = BrokerServer::at_665a28f(backend.clone(), identity.clone(), options);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            server.serve(listener, stopped).await;
        });
        Self {
            backend,
            ca,
            identity,
            address,
            dir,
            stop: Some(stop),
            server,
        }
    }

    /// A connection with the SVID of `path` by `ca`.
    async fn channel(&self, ca: &TestCa, path: &str) -> Result<Channel, tonic::transport::Error> {
        let connect = self.connector(ca, path);
        let connect = tower::service_fn(move |_: Uri| {
            let connected = connect();
            async move { Ok::<_, io::Error>(TokioIo::new(connected.await?)) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        soon(endpoint.connect_with_connector(connect)).await
    }

    /// As [`channel`](Self::channel), and nothing is said after the handshake.
    async fn tls(&self, ca: &TestCa, path: &str) -> io::Result<TlsStream<Io>> {
        soon(self.connector(ca, path)()).await
    }

    fn connector(
        &self,
        ca: &TestCa,
        path: &str,
    ) -> impl Fn() -> BoxFuture<'static, io::Result<TlsStream<Io>>> + Send + use<> {
        let source = IdentitySource::with(ca.svid(path, HOUR), self.trust());
        let options = ClientOptions {
            alpn: vec![b"h2".to_vec()],
            ..ClientOptions::default()
        };
        let tls = ClientTls::new(source, options);
        let address = self.address.clone();
        move || {
            let (address, tls) = (address.clone(), tls.clone());
            Box::pin(async move {
                let config = tls.config().map_err(io::Error::other)?;
                let name = ClientTls::server_name();
                let stream: Io = match address.strip_prefix("unix://") {
                    Some(path) => Box::new(UnixStream::connect(path).await?),
                    None => Box::new(TcpStream::connect(&address["tcp://".len()..]).await?),
                };
                TlsConnector::from(config).connect(name, stream).await
            })
        }
    }

    /// Every user of this machine reaches the socket.
    fn open_to_all(&self) {
        let path = self.address.strip_prefix("unix://").unwrap();
        for (path, mode) in [(Path::new(path), 0o666), (self.dir.path(), 0o755)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    fn trust(&self) -> TrustBundleSet {
        TrustBundleSet::new([self.ca.bundle()])
    }

    async fn client(&self) -> Client {
        let channel = self.channel(&self.ca, "/broker").await.unwrap();
        ApiClient::with_interceptor(channel, SecurityHeader::new())
    }
}

type Io = Box<dyn Duplex>;

trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Duplex for S {}

fn pid(pid: i32) -> Option<WorkloadReference> {
    Some(WorkloadPidReference { pid }.into())
}

fn known() -> Option<WorkloadReference> {
    pid(KNOWN_PID.try_into().unwrap())
}

fn pod(name: &str, uid: &str) -> Option<WorkloadReference> {
    let reference = KubernetesObjectReference {
        r#type: Some(KubernetesObjectType {
            plural: "pods".to_owned(),
            group: "core".to_owned(),
        }),
        key: (!name.is_empty()).then(|| KubernetesObjectKey {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }),
        uid: uid.to_owned(),
    };
    Some(reference.into())
}

fn svids(reference: Option<WorkloadReference>) -> SubscribeToX509svidRequest {
    SubscribeToX509svidRequest { reference }
}

fn jwt(reference: Option<WorkloadReference>, audiences: &[&str]) -> FetchJwtsvidRequest {
    FetchJwtsvidRequest {
        reference,
        audience: audiences.iter().map(|it| (*it).to_owned()).collect(),
        spiffe_id: String::new(),
    }
}

/// The refusal of a stream, whichever way it comes.
async fn refusal(client: &mut Client, reference: Option<WorkloadReference>) -> Status {
    match soon(client.subscribe_to_x509svid(svids(reference))).await {
        Err(status) => status,
        Ok(stream) => soon(stream.into_inner().message()).await.unwrap_err(),
    }
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, "spiffe.io");
    info.reason
}

#[tokio::test]
async fn ba_10_ba_13_a_broker_follows_what_the_workload_would_get_over_both_transports() {
    for tcp in [false, true] {
        let world = World::with(tcp, Options::default()).await;
        let mut client = world.client().await;
        for reference in [
            known(),
            pod("web-0", ""),
            pod("", KNOWN_POD),
            pod("web-0", KNOWN_POD),
        ] {
            let stream = client.subscribe_to_x509svid(svids(reference));
            let mut stream = soon(stream).await.unwrap().into_inner();
            let first = soon(stream.message()).await.unwrap().unwrap();
            let ids: Vec<_> = first
                .svids
                .iter()
                .map(|svid| svid.spiffe_id.as_str())
                .collect();
            assert_eq!(
                ids,
                ["spiffe://one.example/app", "spiffe://one.example/other"]
            );
            assert_eq!(first.svids[0].hint, "internal");
            assert_eq!(first.svids[0].bundle, world.ca.certificate().as_ref());
            world.backend.rotate();
            let second = soon(stream.message()).await.unwrap().unwrap();
            assert_eq!(second.svids.len(), 2);
            assert_ne!(first.svids[0].x509_svid, second.svids[0].x509_svid);
        }
        let reference = known();
        let stream = client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest { reference });
        let mut stream = soon(stream).await.unwrap().into_inner();
        let bundles = soon(stream.message()).await.unwrap().unwrap().bundles;
        assert!(bundles.contains_key("spiffe://one.example"));
        let reference = known();
        let stream = client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest { reference });
        let mut stream = soon(stream).await.unwrap().into_inner();
        let bundles = soon(stream.message()).await.unwrap().unwrap().bundles;
        assert!(bundles.contains_key("spiffe://one.example"));
        let tokens = soon(client.fetch_jwtsvid(jwt(known(), &["a"])))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(tokens.svids.len(), 2);
        // The audience is mandatory.
        let status = soon(client.fetch_jwtsvid(jwt(known(), &[])))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn be_03_the_brokers_header_is_asked_for_and_the_workloads_does_not_do() {
    let world = World::start().await;
    let channel = world.channel(&world.ca, "/broker").await.unwrap();
    let mut client = ApiClient::new(channel);
    for (name, values) in [
        ("broker.spiffe.io", &[][..]),
        ("broker.spiffe.io", &["True"]),
        ("broker.spiffe.io", &["true", "true"]),
        ("workload.spiffe.io", &["true"]),
    ] {
        let mut request = Request::new(svids(known()));
        for value in values {
            request
                .metadata_mut()
                .append(name, MetadataValue::from_static(value));
        }
        let status = soon(client.subscribe_to_x509svid(request))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name} {values:?}");
    }
}

#[tokio::test]
async fn be_04_without_an_svid_of_a_known_trust_domain_there_is_no_handshake() {
    let world = World::start().await;
    // Of another CA: the name of the broker, and of another trust domain.
    for stranger in [TestCa::new("one.example"), TestCa::new("two.example")] {
        let outcome = match world.channel(&stranger, "/broker").await {
            Err(_) => continue,
            // TLS 1.3 tells a client of the refusal after its handshake.
            Ok(channel) => {
                let mut client = ApiClient::with_interceptor(channel, SecurityHeader::new());
                soon(client.subscribe_to_x509svid(svids(known()))).await
            }
        };
        assert!(outcome.is_err());
    }
    // Plain text.
    let path = world.address.strip_prefix("unix://").unwrap().to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    if let Ok(channel) = soon(endpoint.connect_with_connector(connect)).await {
        let mut client = ApiClient::with_interceptor(channel, SecurityHeader::new());
        soon(client.subscribe_to_x509svid(svids(known())))
            .await
            .unwrap_err();
    }
}

#[tokio::test]
async fn be_06_ba_08_one_that_is_not_on_the_list_gets_nothing() {
    let world = World::start().await;
    for path in ["/app", "/broker/x", "/brokers"] {
        let channel = world.channel(&world.ca, path).await.unwrap();
        let mut client = ApiClient::with_interceptor(channel, SecurityHeader::new());
        let status = refusal(&mut client, known()).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{path}");
        let status = soon(client.fetch_jwtsvid(jwt(known(), &["a"])))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{path}");
    }
}

#[tokio::test]
async fn ba_03_ba_06_ba_07_ba_11_references_are_told_apart_with_reasons() {
    let world = World::start().await;
    let mut client = world.client().await;
    let other = "a1b2c3d4-0000-4000-8000-000000000002";
    let unknown_type = WorkloadReference {
        reference: Some(prost_types::Any {
            type_url: "type.googleapis.com/other.Reference".to_owned(),
            value: vec![],
        }),
    };
    let cases = [
        (None, Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (
            Some(unknown_type),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
        (pid(0), Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (
            pid(-4242),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
        (pid(1), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        (pod("web-1", ""), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        (
            pod("web-0", other),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
        (
            pod("", ""),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
    ];
    for (reference, code, why) in cases {
        let status = refusal(&mut client, reference.clone()).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (code, why),
            "{reference:?}"
        );
        let asked = jwt(reference, &["a"]);
        let status = soon(client.fetch_jwtsvid(asked)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, why));
    }
    world.backend.deny(&Denied::NoIdentity("none".to_owned()));
    let status = refusal(&mut client, known()).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(reason(&status), "WORKLOAD_NOT_ENTITLED");
}

#[tokio::test]
async fn ba_12_nothing_is_sent_once_the_workload_has_ended() {
    let world = World::start().await;
    let mut client = world.client().await;
    let stream = client.subscribe_to_x509svid(svids(known()));
    let mut stream = soon(stream).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    world.backend.end_processes();
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(reason(&status), "WORKLOAD_NOT_FOUND");
}

#[tokio::test]
async fn a_broker_whose_ca_leaves_the_bundle_is_cut_off() {
    let world = World::start().await;
    let mut client = world.client().await;
    let stream = client.subscribe_to_x509svid(svids(known()));
    let mut stream = soon(stream).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let other: TrustBundle = TestCa::new("one.example").bundle();
    world.identity.set_bundles(TrustBundleSet::new([other]));
    soon(stream.message()).await.unwrap_err();
}

#[tokio::test]
async fn be_07_be_08_ba_01_ba_02_reflection_profiles_and_drain() {
    use futures_util::stream;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let options = Options {
        jwt: false,
        ..Options::default()
    };
    let mut world = World::with(false, options).await;
    let channel = world.channel(&world.ca, "/broker").await.unwrap();
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answer = reflection.server_reflection_info(stream::iter([request]));
    let mut answers = soon(answer).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    assert!(
        list.service
            .iter()
            .any(|service| service.name == "spiffe.broker.API")
    );

    let mut client = world.client().await;
    let status = soon(client.fetch_jwtsvid(jwt(known(), &["a"])))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let stream = client.subscribe_to_x509svid(svids(known()));
    let mut stream = soon(stream).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let _ = world.stop.take().unwrap().send(());
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    drop((client, reflection, answers));
    soon(world.server).await.unwrap();
}

/// Silent connections of another user; those that are open still after those that the
/// server has closed at once.
fn silent(path: &str, connections: usize, closed: usize) -> Vec<std::os::unix::net::UnixStream> {
    use std::{io::Read as _, os::unix::net::UnixStream, thread};
    const NOBODY: u32 = 65_534;
    let path = path.to_owned();
    let connecting = thread::spawn(move || {
        // Of this thread alone, which ends.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        let connect = |_| UnixStream::connect(&path).unwrap();
        let mut silent: Vec<_> = (0..connections).map(connect).collect();
        for refused in silent.split_off(connections - closed) {
            refused
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            let mut refused = refused;
            match refused.read(&mut [0; 8]) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                other => panic!("it was not closed: {other:?}"),
            }
        }
        silent
    });
    connecting.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_that_says_nothing_keeps_no_other_out() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: to connect as another user needs root");
        return;
    }
    let (world, _held) = silent_world(false).await;
    let mut client = world.client().await;
    let stream = client.subscribe_to_x509svid(svids(known()));
    let mut stream = soon(stream).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_count_as_one_have_the_places_of_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: to connect as another user needs root");
        return;
    }
    let (world, _held) = silent_world(true).await;
    assert!(world.tls(&world.ca, "/broker").await.is_err());
}

/// A server of which another user has all the places that one user may have.
async fn silent_world(all_are_one: bool) -> (World, Vec<std::os::unix::net::UnixStream>) {
    let options = Options {
        max_connections: 6,
        max_connections_per_user: 4,
        handshake: HOUR,
        ..Options::default()
    };
    let world = World::with(false, options).await;
    world.backend.count_users_as_one(all_are_one);
    let path = world.address.strip_prefix("unix://").unwrap().to_owned();
    world.open_to_all();
    // And two more.
    let held = tokio::task::spawn_blocking(move || silent(&path, 6, 2));
    (world, held.await.unwrap())
}

#[tokio::test]
async fn connections_are_counted_apart_before_and_after_the_handshake() {
    let options = Options {
        max_connections: 1,
        max_connections_per_user: 1,
        ..Options::default()
    };
    let world = World::with(false, options).await;
    let mut client = world.client().await;
    let stream = client.subscribe_to_x509svid(svids(known()));
    let mut stream = soon(stream).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    // The handshake finds a place, and what follows it finds none.
    let tls = world.tls(&world.ca, "/broker").await;
    let mut tls = tls.expect("a handshake");
    assert_eq!(soon(tls.read(&mut [0; 8])).await.unwrap_or(0), 0);
    // What says nothing gives its place back by itself, and what is served stays.
    let path = world.address.strip_prefix("unix://").unwrap();
    let mut silent = UnixStream::connect(path).await.unwrap();
    assert_eq!(soon(silent.read(&mut [0; 8])).await.unwrap_or(0), 0);
    world.backend.rotate();
    soon(stream.message()).await.unwrap().unwrap();
}
