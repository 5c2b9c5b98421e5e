//! A stand-in for the kubelet: its one endpoint over TLS, counting.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use attest::{Config, KubeletVerification, KubernetesConfig};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};
use tokio_rustls::TlsAcceptor;

pub(crate) struct Kubelet {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    pods: Mutex<Vec<Value>>,
    token: Mutex<String>,
    lists: AtomicUsize,
    asked: Notify,
    hangs: AtomicBool,
}

impl Kubelet {
    /// With a certificate for `localhost`; its CA and the token `first` are in files.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.crt"), ca.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &ca)
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(identity::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubelet = Self {
            folder,
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
        };
        kubelet.set_token("first");
        let state = Arc::clone(&kubelet.state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|request| answer(Arc::clone(&state), request));
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        kubelet
    }

    /// The token that it takes, in the agent's file too.
    pub(crate) fn set_token(&self, token: &str) {
        fs::write(self.file("token"), format!("{token}\n")).unwrap();
        *self.state.token.lock().unwrap() = token.to_owned();
    }

    /// The token that it takes; the agent's file has another.
    pub(crate) fn want_token(&self, token: &str) {
        *self.state.token.lock().unwrap() = token.to_owned();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn set_pods(&self, pods: impl IntoIterator<Item = Value>) {
        *self.state.pods.lock().unwrap() = pods.into_iter().collect();
    }

    pub(crate) fn hang(&self, hangs: bool) {
        self.state.hangs.store(hangs, Ordering::SeqCst);
    }

    /// How many lists it was asked for.
    pub(crate) fn lists(&self) -> usize {
        self.state.lists.load(Ordering::SeqCst)
    }

    /// Waits until it is asked again.
    pub(crate) async fn asked(&self) {
        super::within(self.state.asked.notified()).await;
    }

    pub(crate) fn config(&self) -> KubernetesConfig {
        let mut config = KubernetesConfig::new(format!("https://localhost:{}", self.port));
        config.token = Some(self.file("token"));
        config.verification = KubeletVerification::Ca(self.file("ca.crt"));
        config
    }
}

pub(crate) fn only(kubernetes: KubernetesConfig) -> Config {
    let mut config = Config::default();
    config.unix.hash = false;
    config.kubernetes = Some(kubernetes);
    config
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let status = |status: u16| {
        let answer = Response::builder().status(status);
        Ok(answer.body(Full::new(Bytes::new())).unwrap())
    };
    let bearer = format!("Bearer {}", state.token.lock().unwrap());
    if request
        .headers()
        .get("authorization")
        .map(|value| value.as_bytes())
        != Some(bearer.as_bytes())
    {
        return status(401);
    }
    if request.uri().path() != "/pods" {
        return status(404);
    }
    state.lists.fetch_add(1, Ordering::SeqCst);
    state.asked.notify_one();
    if state.hangs.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let list = json!({
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {},
        "items": *state.pods.lock().unwrap(),
    });
    Ok(Response::new(Full::new(list.to_string().into())))
}

/// A pod with one container, as a kubelet lists it; no id: its status is not there yet.
pub(crate) fn pod(name: &str, uid: &str, container: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "labels": {"app": name}},
        "spec": {
            "serviceAccountName": "web",
            "containers": [{"name": "main", "image": "registry.example/web:1"}],
        },
        "status": {"phase": "Running", "containerStatuses": container.map(|id| json!([{
            "name": "main",
            "image": "registry.example/web:1",
            "imageID": format!("registry.example/web@sha256:{}", "7".repeat(64)),
            "containerID": format!("containerd://{id}"),
        }]))},
    })
}
