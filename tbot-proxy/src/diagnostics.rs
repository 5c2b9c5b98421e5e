//! Diagnostics on loopback: `/livez`, `/readyz`, `/readyz/{service}`, `/metrics`.
//!
//! They run on the control runtime, so they answer while the data path is
//! saturated (DESIGN D12). Nothing here is secret and nobody is authenticated.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};

use crate::state::{Entry, Health, IdentityState, Status};

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct Diagnostics {
    pub(crate) health: Health,
    pub(crate) bot: watch::Receiver<IdentityState>,
    pub(crate) metrics: PrometheusHandle,
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
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Diagnostics {
    /// Listens on `address` and answers until the process ends.
    pub(crate) async fn start(self, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        tracing::info!(listen = %listener.local_addr()?, "diagnostics listen");
        let routes = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/readyz/{service}", get(service_ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(())
    }
}

async fn ready(State(diagnostics): State<Diagnostics>) -> Response {
    let services = diagnostics.health.entries();
    let all_ready = services.values().all(|entry| entry.status == Status::Ready);
    let status = if diagnostics.draining.load(Ordering::Relaxed) {
        "draining"
    } else if all_ready {
        "ready"
    } else {
        "not_ready"
    };
    let IdentityState { held, reason } = diagnostics.bot.borrow().clone();
    let readiness = Readiness {
        status,
        services,
        bot_identity: BotIdentity {
            status: if held {
                Status::Ready
            } else {
                Status::NotReady
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
        Some(entry) => (code(entry.status == Status::Ready), Json(entry)).into_response(),
        None => (StatusCode::NOT_FOUND, "no such service\n").into_response(),
    }
}

async fn metrics(State(diagnostics): State<Diagnostics>) -> Response {
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4");
    ([content_type], diagnostics.metrics.render()).into_response()
}

fn code(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
