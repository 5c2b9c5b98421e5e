//! Diagnostics on loopback: `/livez`, `/readyz`, `/readyz/{service}`, `/metrics`, `/status`.
//!
//! They run on the control runtime, so they answer while the data path is
//! saturated (DESIGN D12). Nothing here is secret and nobody is authenticated, so
//! nobody can hold them up for long either: one request a connection, which must
//! have come within 10 s and be answered within 30, and 64 connections at a time;
//! further ones wait in the kernel's queue.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use identity::IdentitySource;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use crate::{
    kept::Roll,
    link::IssuerLink,
    state::{self, Entry, Health, IdentityState},
    status::{Bot, Identities, Issuer, Status},
    trust::Trust,
};

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// From the connection to the end of the request's head.
const REQUEST: Duration = Duration::from_secs(10);

/// From the connection to the end of the answer.
const ANSWER: Duration = Duration::from_secs(30);

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct Diagnostics {
    pub(crate) health: Health,
    pub(crate) bot: watch::Receiver<IdentityState>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) roll: Arc<Roll>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) link: Arc<IssuerLink>,
    /// Of the agent itself.
    pub(crate) identity: Arc<IdentitySource>,
    /// Set when the process begins to end.
    pub(crate) draining: Arc<AtomicBool>,
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    services: BTreeMap<String, Entry>,
    bot_identity: BotIdentity,
}

/// For information: services go on with their SVIDs while it is lost or not renewed.
#[derive(Serialize)]
struct BotIdentity {
    status: state::Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Diagnostics {
    fn readiness(&self) -> &'static str {
        let mut services = self.health.entries().into_values();
        if self.draining.load(Ordering::Relaxed) {
            "draining"
        } else if services.all(|entry| entry.status == state::Status::Ready) {
            "ready"
        } else {
            "not_ready"
        }
    }

    /// Listens on `address` and answers until the process ends.
    pub(crate) async fn start(self, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        tracing::info!(listen = %listener.local_addr()?, "diagnostics listen");
        let routes = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/readyz/{service}", get(service_ready))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .with_state(self);
        tokio::spawn(serve(listener, routes, ANSWER));
        Ok(())
    }
}

/// Where connections come from.
pub(crate) trait Accept: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// One request a connection, which may take `limit` in all.
pub(crate) async fn serve(listener: impl Accept, routes: Router, limit: Duration) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "diagnostics: cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        let builder = builder.clone();
        tokio::spawn(async move {
            let served = builder.serve_connection(TokioIo::new(stream), service);
            // What goes wrong with it is the client's matter.
            _ = timeout(limit, served).await;
            drop(place);
        });
    }
}

async fn status(State(diagnostics): State<Diagnostics>) -> Response {
    let bundles = diagnostics.trust.bundles().borrow().clone();
    let bot = diagnostics.bot.borrow().clone();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        status: diagnostics.readiness().to_owned(),
        bot: Bot::of(&bot, &diagnostics.identity.current()),
        issuer: Issuer {
            address: diagnostics.link.addresses().current().to_string(),
            connected: diagnostics.trust.is_followed(),
            trust_domains: bundles
                .iter()
                .map(|bundle| bundle.trust_domain().to_string())
                .collect(),
        },
        services: diagnostics.health.entries(),
        identities: Identities::of(&diagnostics.roll),
    })
    .into_response()
}

async fn ready(State(diagnostics): State<Diagnostics>) -> Response {
    let services = diagnostics.health.entries();
    let status = diagnostics.readiness();
    let IdentityState { held, reason } = diagnostics.bot.borrow().clone();
    let readiness = Readiness {
        status,
        services,
        bot_identity: BotIdentity {
            status: if held {
                state::Status::Ready
            } else {
                state::Status::NotReady
            },
            reason,
        },
    };
    (code(status == "ready"), Json(readiness)).into_response()
}

async fn service_ready(
    State(diagnostics): State<Diagnostics>,
    Path(service): Path<String>,
) -> Response {
    match diagnostics.health.entries().remove(&service) {
        Some(entry) => (code(entry.status == state::Status::Ready), Json(entry)).into_response(),
        None => (StatusCode::NOT_FOUND, "no such service\n").into_response(),
    }
}

async fn metrics(State(diagnostics): State<Diagnostics>) -> Response {
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4");
    let text =
        diagnostics.metrics.render() + &diagnostics.health.gauges() + &diagnostics.roll.gauges();
    ([content_type], text).into_response()
}

fn code(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
