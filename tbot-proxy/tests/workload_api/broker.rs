//! The Broker API of the agent, asked by the `spiffe` crate's client over mutual TLS.

use std::{
    io,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::State, routing::get};
use hyper_util::rt::TokioIo;
use identity::{
    ClientOptions, ClientTls, IdentitySource, TrustBundle, TrustBundleSet, TrustDomain, X509Svid,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use spiffe::broker_api::{
    SecurityHeader,
    pb::spiffe::broker::{
        FetchJwtsvidRequest, KubernetesObjectKey, KubernetesObjectReference, KubernetesObjectType,
        SubscribeToX509svidRequest, SubscribeToX509svidResponse, WorkloadPidReference,
        WorkloadReference, api_client::ApiClient,
    },
};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, fetch, soon, svid};

const POD: &str = "6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e";

/// `/broker` and `/agent` are for everybody, the others by what is attested.
const IDENTITIES: &str = "
kind: workload_identity
version: v1
metadata: { name: broker, labels: { app: app } }
spec: { spiffe: { id: /broker } }
---
kind: workload_identity
version: v1
metadata: { name: agent, labels: { app: app } }
spec: { spiffe: { id: /agent } }
---
kind: workload_identity
version: v1
metadata: { name: process, labels: { app: app, offered: 'yes' } }
spec: { spiffe: { id: \"/process/{{ workload.unix.pid }}\" } }
---
kind: workload_identity
version: v1
metadata: { name: pod, labels: { app: app, offered: 'yes' } }
spec: { spiffe: { id: \"/ns/{{ workload.kubernetes.namespace }}/sa/{{ workload.kubernetes.service_account }}/{{ workload.kubernetes.pod_name }}\" } }
";

type Client = ApiClient<InterceptedService<Channel, SecurityHeader>>;

/// An agent with a Workload API, by which this process becomes a broker, and a Broker API.
struct World {
    rig: Rig,
    kubelet: Kubelet,
}

impl World {
    async fn start() -> Self {
        Self::allowing("spiffe://e2e.example/broker").await
    }

    async fn allowing(broker: &str) -> Self {
        let kubelet = Kubelet::start().await;
        let attestors = format!(
            "kubernetes: {{ kubelet: {{ read_only_port: {} }} }}",
            kubelet.port
        );
        let service = |home: &Path| {
            vec![format!(
                "type: spiffe-broker-api, name: broker, specification: spiffe/spiffe@665a28f, \
                 selector: {{ labels: {{ offered: ['yes'] }} }}, identity: {{ name: agent }}, \
                 brokers: [\"{broker}\"], listen: \"unix://{}\", attestors: {{ {attestors} }}",
                home.join("broker.sock").display()
            )]
        };
        let rig = tokio::task::block_in_place(|| {
            Rig::start_with_services(IDENTITIES, "{ name: broker }", "", service)
        });
        Self { rig, kubelet }
    }

    /// A client with the SVID that this process has by the Workload API.
    async fn client(&self) -> Client {
        let message = fetch(&mut self.rig.client().await).await.unwrap();
        let own = svid(&message);
        assert_eq!(own.id().as_str(), "spiffe://e2e.example/broker");
        self.client_as(own, bundle(&message.svids[0].bundle)).await
    }

    async fn client_as(&self, svid: X509Svid, bundles: TrustBundleSet) -> Client {
        let source = IdentitySource::with(svid, bundles);
        let options = ClientOptions {
            alpn: vec![b"h2".to_vec()],
            ..ClientOptions::default()
        };
        let tls = ClientTls::new(source, options);
        let socket = self.rig.socket().with_file_name("broker.sock");
        let connect = tower::service_fn(move |_: Uri| {
            let (socket, tls) = (socket.clone(), tls.clone());
            async move {
                let config = tls.config().map_err(io::Error::other)?;
                let stream = UnixStream::connect(socket).await?;
                let connector = TlsConnector::from(config);
                let stream = connector.connect(ClientTls::server_name(), stream).await?;
                // BE-04: the broker knows whom it talks to.
                let chain = stream.get_ref().1.peer_certificates();
                let server = tls.identify(chain, std::time::SystemTime::now());
                let server = server.map_err(io::Error::other)?;
                assert_eq!(server.id.as_str(), "spiffe://e2e.example/agent");
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = soon(endpoint.connect_with_connector(connect))
            .await
            .unwrap();
        ApiClient::with_interceptor(channel, SecurityHeader::new())
    }
}

fn bundle(der: &[u8]) -> TrustBundleSet {
    let authority = CertificateDer::from(der.to_vec());
    let domain = TrustDomain::parse(e2e::TRUST_DOMAIN).unwrap();
    TrustBundleSet::new([TrustBundle::new(domain, vec![authority]).unwrap()])
}

/// What a kubelet with an open read-only port lists.
struct Kubelet {
    port: u16,
    pods: Arc<Mutex<Vec<Value>>>,
}

impl Kubelet {
    async fn start() -> Self {
        let pods: Arc<Mutex<Vec<Value>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let list = async |State(pods): State<Arc<Mutex<Vec<Value>>>>| {
            Json(json!({ "kind": "PodList", "items": *pods.lock().unwrap() }))
        };
        let router = Router::new()
            .route("/pods", get(list))
            .with_state(pods.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, pods }
    }

    fn set(&self, pods: &[Value]) {
        *self.pods.lock().unwrap() = pods.to_vec();
    }
}

fn pod(name: &str, uid: &str, phase: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "uid": uid },
        "spec": { "serviceAccountName": "web", "containers": [] },
        "status": { "phase": phase },
    })
}

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn by_pid(pid: i32) -> WorkloadReference {
    WorkloadPidReference { pid }.into()
}

fn by_object(plural: &str, key: Option<(&str, &str)>, uid: &str) -> WorkloadReference {
    KubernetesObjectReference {
        r#type: Some(KubernetesObjectType {
            plural: plural.to_owned(),
            group: "core".to_owned(),
        }),
        key: key.map(|(namespace, name)| KubernetesObjectKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        uid: uid.to_owned(),
    }
    .into()
}

async fn subscribe(
    client: &mut Client,
    reference: WorkloadReference,
) -> Result<Streaming<SubscribeToX509svidResponse>, Status> {
    let request = SubscribeToX509svidRequest {
        reference: Some(reference),
    };
    Ok(soon(client.subscribe_to_x509svid(request))
        .await?
        .into_inner())
}

/// The SPIFFE IDs of the next message.
async fn next(stream: &mut Streaming<SubscribeToX509svidResponse>) -> Result<Vec<String>, Status> {
    let message = soon(stream.message()).await?.expect("no end with OK");
    Ok(message
        .svids
        .into_iter()
        .map(|svid| svid.spiffe_id)
        .collect())
}

/// The SPIFFE IDs that a reference yields, and the stream.
async fn first(
    client: &mut Client,
    reference: WorkloadReference,
) -> Result<(Vec<String>, Streaming<SubscribeToX509svidResponse>), Status> {
    let mut stream = subscribe(client, reference).await?;
    let ids = next(&mut stream).await?;
    Ok((ids, stream))
}

fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn ba_04_ba_12_a_process_is_attested_by_the_agent_and_served_while_it_lives() {
    let world = World::start().await;
    let mut client = world.client().await;
    let workload = Sleeper::start();
    let (ids, mut stream) = first(&mut client, by_pid(workload.pid())).await.unwrap();
    let id = format!("spiffe://e2e.example/process/{}", workload.pid());
    assert_eq!(ids, [id.as_str()], "of the process, and not of the broker");
    let request = FetchJwtsvidRequest {
        reference: Some(by_pid(workload.pid())),
        audience: vec!["db".to_owned()],
        spiffe_id: String::new(),
    };
    let tokens = soon(client.fetch_jwtsvid(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tokens.svids[0].spiffe_id, id);

    // Another process goes on.
    let other = Sleeper::start();
    let (_, mut others) = first(&mut client, by_pid(other.pid())).await.unwrap();
    let pid = workload.pid();
    drop(workload);
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::NotFound, "{ended}");
    let gone = first(&mut client, by_pid(pid)).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
    assert_eq!(reason(&gone).as_deref(), Some("WORKLOAD_NOT_FOUND"));
    world.rig.agent.renew();
    let renewed = next(&mut others).await.unwrap();
    assert_eq!(
        renewed,
        [format!("spiffe://e2e.example/process/{}", other.pid())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ba_07_ba_12_a_pod_is_what_the_kubelet_says_until_it_is_no_more() {
    let world = World::start().await;
    let mut client = world.client().await;
    let finished = "11111111-2222-3333-4444-555555555555";
    world.kubelet.set(&[
        pod("web-1", POD, "Running"),
        pod("job-1", finished, "Succeeded"),
    ]);
    let key = Some(("shop", "web-1"));
    for reference in [
        by_object("pods", key, ""),
        by_object("pods", None, POD),
        by_object("pods", key, POD),
    ] {
        let (ids, _) = first(&mut client, reference).await.unwrap();
        assert_eq!(ids, ["spiffe://e2e.example/ns/shop/sa/web/web-1"]);
    }
    for (reference, code, why) in [
        (
            by_object("pods", key, finished),
            Code::NotFound,
            "WORKLOAD_NOT_FOUND",
        ),
        (
            by_object("pods", None, finished),
            Code::NotFound,
            "WORKLOAD_NOT_FOUND",
        ),
        (
            by_object("pods", Some(("shop", "web-2")), ""),
            Code::NotFound,
            "WORKLOAD_NOT_FOUND",
        ),
        (
            by_object("nodes", None, POD),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
        (
            by_object("pods", Some(("", "web-1")), ""),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
    ] {
        let refused = first(&mut client, reference.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{reference:?}: {refused}");
        assert_eq!(reason(&refused).as_deref(), Some(why), "{reference:?}");
    }
    // Its name is another pod's now.
    let (_, mut stream) = first(&mut client, by_object("pods", key, ""))
        .await
        .unwrap();
    world.kubelet.set(&[pod("web-1", finished, "Running")]);
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::NotFound, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn be_06_who_is_not_on_the_list_gets_nothing() {
    let world = World::allowing("spiffe://e2e.example/another").await;
    let mut client = world.client().await;
    let workload = Sleeper::start();
    let refused = first(&mut client, by_pid(workload.pid()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(world.rig.issued("x509"), 2, "the broker's and the agent's");
}
