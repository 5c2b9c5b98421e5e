//! A stand-in for the API server of Kubernetes, as far as Secrets go: create, read, server-side
//! apply with field managers and conflicts, merge patches, updates, deletion with preconditions,
//! over TLS with bearer tokens; and the discovery that `kubectl` asks for.
//!
//! Ownership follows the server's rules: an apply owns the leaves that it names, conflicts
//! with another manager's leaf of another value, and removes what it named before and
//! nobody else owns; any other change takes what it changes away from others.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

// By its path: a test of the agent reads this file by path as well.
#[path = "fake_api/stored.rs"]
mod stored;

use stored::{Stored, object};

/// What somebody else does.
type Other = Box<dyn FnOnce(&FakeApi) + Send>;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct FakeApi {
    secrets: Arc<Mutex<BTreeMap<String, Stored>>>,
    counter: Arc<AtomicU64>,
    /// What is asked meets 403 while this is set.
    pub(super) forbids: Arc<AtomicBool>,
    /// Runs once, before the next change: somebody else is first.
    pub(super) before_change: Arc<Mutex<Option<Other>>>,
    /// Changes that were granted.
    pub(super) changes: Arc<AtomicU64>,
}

const TOKEN: &str = "a-service-account-token";

impl FakeApi {
    /// Serves on a port of its own; the kubeconfig that leads to it.
    pub(super) async fn start(&self, home: &FilePath) -> PathBuf {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key =
            rustls_pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder_with_provider(identity::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key.into())
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let routes = self.routes();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, routes) = (tls.clone(), routes.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let service = TowerToHyperService::new(routes);
                    _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let ca = home.join("api-ca.pem");
        std::fs::write(&ca, certificate.cert.pem()).unwrap();
        let kubeconfig = home.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{ name: it, cluster: {{ server: 'https://{address}', certificate-authority: {} }} }}]\n\
             users: [{{ name: it, user: {{ token: {TOKEN} }} }}]\n\
             contexts: [{{ name: it, context: {{ cluster: it, user: it, namespace: apps }} }}]\n",
            ca.display()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        kubeconfig
    }

    fn routes(&self) -> Router {
        let secrets = get(list).post(create);
        let secret = get(read).patch(patch).put(update).delete(delete);
        Router::new()
            .route(
                "/api",
                get(|| async { Json(json!({ "kind": "APIVersions", "versions": ["v1"] })) }),
            )
            .route(
                "/apis",
                get(|| async {
                    Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] }))
                }),
            )
            .route("/api/v1", get(resources))
            .route(
                "/version",
                get(|| async {
                    Json(json!({ "major": "1", "minor": "37", "gitVersion": "v1.37.1" }))
                }),
            )
            .route("/api/v1/namespaces/{namespace}/secrets", secrets)
            .route("/api/v1/namespaces/{namespace}/secrets/{name}", secret)
            .with_state(self.clone())
    }

    /// The object as a client sees it.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let secrets = self.secrets.lock().unwrap();
        Some(object(name, secrets.get(name)?))
    }

    /// A change by somebody else, as an update (`kubectl edit`).
    pub(super) fn edit(&self, name: &str, manager: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(name).unwrap();
        edit(&mut object);
        let mut secrets = self.secrets.lock().unwrap();
        let stored = secrets.get_mut(name).unwrap();
        stored.update(manager, &object);
        stored.version = self.next();
    }

    pub(super) fn delete(&self, name: &str) {
        self.secrets.lock().unwrap().remove(name).unwrap();
    }

    fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let bearer = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        if bearer != Some(&format!("Bearer {TOKEN}")) {
            return Err(Box::new(status(
                401,
                "Unauthorized",
                "Unauthorized",
                vec![],
            )));
        }
        if self.forbids.load(Ordering::Relaxed) {
            let message = "secrets \"web\" is forbidden: User \"system:serviceaccount:apps:x\" cannot patch resource \"secrets\"";
            return Err(Box::new(status(403, "Forbidden", message, vec![])));
        }
        Ok(())
    }

    fn begin_change(&self) {
        let other = self.before_change.lock().unwrap().take();
        if let Some(other) = other {
            // It may ask this very server.
            tokio::task::block_in_place(|| other(self));
        }
    }
}

fn status(code: u16, reason: &str, message: &str, causes: Vec<Value>) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
        "details": { "kind": "secrets", "causes": causes },
    });
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}

fn not_found(name: &str) -> Response {
    status(
        404,
        "NotFound",
        &format!("secrets \"{name}\" not found"),
        vec![],
    )
}

fn stale(name: &str) -> Response {
    let message = format!(
        "Operation cannot be fulfilled on secrets \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
    );
    status(409, "Conflict", &message, vec![])
}

async fn resources() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList", "groupVersion": "v1",
        "resources": [{
            "name": "secrets", "singularName": "secret", "namespaced": true, "kind": "Secret",
            "verbs": ["create", "delete", "get", "list", "patch", "update"],
        }],
    }))
}

type Parameters = Query<BTreeMap<String, String>>;

fn manager(parameters: &Parameters) -> &str {
    parameters
        .get("fieldManager")
        .map_or("unknown", String::as_str)
}

async fn list(State(api): State<FakeApi>, headers: HeaderMap) -> Response {
    if let Err(refused) = api.admit(&headers) {
        return *refused;
    }
    let secrets = api.secrets.lock().unwrap();
    let items: Vec<_> = secrets
        .iter()
        .map(|(name, stored)| object(name, stored))
        .collect();
    Json(json!({ "kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": items }))
        .into_response()
}

async fn read(
    State(api): State<FakeApi>,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = api.admit(&headers) {
        return *refused;
    }
    match api.get(&name) {
        Some(found) => Json(found).into_response(),
        None => not_found(&name),
    }
}

async fn create(
    State(api): State<FakeApi>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = api.admit(&headers) {
        return *refused;
    }
    api.begin_change();
    let new: Value = serde_json::from_slice(&body).unwrap();
    let name = new["metadata"]["name"].as_str().unwrap().to_owned();
    let mut secrets = api.secrets.lock().unwrap();
    if secrets.contains_key(&name) {
        return status(
            409,
            "AlreadyExists",
            &format!("secrets \"{name}\" already exists"),
            vec![],
        );
    }
    if let Some(refused) = invalid(&new) {
        return refused;
    }
    let mut stored = Stored {
        uid: api.next(),
        version: api.next(),
        ..Stored::default()
    };
    stored.update(manager(&parameters), &new);
    api.changes.fetch_add(1, Ordering::Relaxed);
    let created = object(&name, &stored);
    secrets.insert(name, stored);
    (StatusCode::CREATED, Json(created)).into_response()
}

/// The server's rule for `kubernetes.io/tls`.
fn invalid(object: &Value) -> Option<Response> {
    let has = |key: &str| object["data"].get(key).is_some();
    (object["type"] == "kubernetes.io/tls" && !(has("tls.crt") && has("tls.key")))
        .then(|| status(422, "Invalid", "data[tls.crt]: Required value", vec![]))
}

async fn patch(
    State(api): State<FakeApi>,
    Path((_, name)): Path<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = api.admit(&headers) {
        return *refused;
    }
    api.begin_change();
    let kind = headers
        .get("content-type")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    // kubectl applies YAML that is JSON.
    let new: Value = serde_json::from_slice(&body).unwrap();
    let force = parameters.get("force").is_some_and(|force| force == "true");
    let mut secrets = api.secrets.lock().unwrap();
    let asked = new["metadata"]["resourceVersion"]
        .as_str()
        .map(str::to_owned);
    let is_apply = kind == "application/apply-patch+yaml";
    if !secrets.contains_key(&name) {
        if !is_apply {
            return not_found(&name);
        }
        if asked.is_some() {
            return stale(&name);
        }
        secrets.insert(
            name.clone(),
            Stored {
                uid: api.next(),
                ..Stored::default()
            },
        );
    }
    let stored = secrets.get_mut(&name).unwrap();
    if asked.is_some_and(|asked| asked != stored.version.to_string()) {
        return stale(&name);
    }
    let mut changed = stored.clone();
    if is_apply {
        if let Err(conflicts) = changed.apply(manager(&parameters), &new, force) {
            let fields: Vec<_> = conflicts
                .iter()
                .map(|c| c["field"].as_str().unwrap())
                .collect();
            let message = format!(
                "Apply failed with {} conflict: {}: {}",
                conflicts.len(),
                conflicts[0]["message"].as_str().unwrap(),
                fields.join(", ")
            );
            return status(409, "Conflict", &message, conflicts);
        }
    } else {
        let mut merged = object(&name, &changed);
        merge(&mut merged, &new);
        changed.update(manager(&parameters), &merged);
    }
    if changed.leaves.get(&vec!["type".to_owned()]) != stored.leaves.get(&vec!["type".to_owned()])
        && stored.version > 0
    {
        return status(
            422,
            "Invalid",
            "type: Invalid value: field is immutable",
            vec![],
        );
    }
    if let Some(refused) = invalid(&object(&name, &changed)) {
        return refused;
    }
    changed.version = api.next();
    *stored = changed;
    api.changes.fetch_add(1, Ordering::Relaxed);
    Json(object(&name, stored)).into_response()
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let map = into.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

async fn update(
    State(api): State<FakeApi>,
    Path((_, name)): Path<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = api.admit(&headers) {
        return *refused;
    }
    let new: Value = serde_json::from_slice(&body).unwrap();
    let mut secrets = api.secrets.lock().unwrap();
    let Some(stored) = secrets.get_mut(&name) else {
        return not_found(&name);
    };
    if new["metadata"]["resourceVersion"].as_str() != Some(&stored.version.to_string()) {
        return stale(&name);
    }
    stored.update(manager(&parameters), &new);
    stored.version = api.next();
    Json(object(&name, stored)).into_response()
}

async fn delete(
    State(api): State<FakeApi>,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = api.admit(&headers) {
        return *refused;
    }
    api.begin_change();
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut secrets = api.secrets.lock().unwrap();
    let Some(stored) = secrets.get(&name) else {
        return not_found(&name);
    };
    let now = object(&name, stored);
    for key in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][key];
        if !wanted.is_null() && *wanted != now["metadata"][key] {
            return stale(&name);
        }
    }
    secrets.remove(&name);
    Json(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })).into_response()
}
