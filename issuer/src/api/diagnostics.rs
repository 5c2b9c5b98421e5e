//! Probes and metrics over HTTP, on loopback unless the operator wants otherwise:
//! `/livez`, `/readyz` and `/readyz/CHECK` (JSON, 503 with reasons while not ready),
//! `/metrics`.
//!
//! Who stalls or floods is bounded in time and number, so that the next probe is
//! answered.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::readiness::{Finding, Readiness};

/// Connections of probes and scrapers at most. They have to be few: each takes one
/// of the files that the listener of agents leaves.
const CONNECTIONS_MAX: usize = 16;
/// How long a request's head may take, and the wait for the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last: who scrapes comes back.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);
/// How long to wait after an accept that failed for want of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often measurements are folded together.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What the probes look at.
#[derive(Clone)]
struct Probes {
    readiness: Arc<Readiness>,
    metrics: PrometheusHandle,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, readiness: Arc<Readiness>, metrics: PrometheusHandle) {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/readyz/{check}", get(check_ready))
        .route("/metrics", get(scrape))
        .with_state(Probes { readiness, metrics });
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for diagnostics could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        let http = http.clone();
        tokio::spawn(async move {
            let served = http.serve_connection(TokioIo::new(stream), service);
            // A client that went or was cut is no news.
            let _ = tokio::time::timeout(CONNECTION_LIFE, served).await;
            drop(place);
        });
    }
}

/// Folds what was measured together, for it grows until somebody does: a scraper,
/// if there is one, or this.
pub async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
        tracing::trace!("metrics were folded");
    }
}

/// Everything: ready if each check is.
async fn ready(State(probes): State<Probes>) -> Response {
    let findings = probes.readiness.findings(SystemTime::now());
    let all = |pick: fn(&Finding) -> &Vec<String>| -> Vec<&String> {
        findings.values().flat_map(pick).collect()
    };
    let is_ready = findings.values().all(Finding::is_ready);
    let checks: serde_json::Map<_, _> = findings
        .iter()
        .map(|(name, finding)| ((*name).to_owned(), told(finding)))
        .collect();
    let body = json!({
        "ready": is_ready,
        "reasons": all(|finding| &finding.reasons),
        "warnings": all(|finding| &finding.warnings),
        "checks": checks,
    });
    (code(is_ready), Json(body)).into_response()
}

async fn check_ready(State(probes): State<Probes>, Path(check): Path<String>) -> Response {
    let findings = probes.readiness.findings(SystemTime::now());
    match findings.get(check.as_str()) {
        Some(finding) => (code(finding.is_ready()), Json(told(finding))).into_response(),
        None => {
            let known: Vec<_> = findings.into_keys().collect();
            let text = format!("no such check: known are {}\n", known.join(", "));
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

fn told(finding: &Finding) -> Value {
    json!({
        "ready": finding.is_ready(),
        "reasons": finding.reasons,
        "warnings": finding.warnings,
    })
}

fn code(is_ready: bool) -> StatusCode {
    match is_ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn scrape(State(probes): State<Probes>) -> Response {
    // Its gauge is as new as the rest.
    probes.readiness.findings(SystemTime::now());
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (kind, probes.metrics.render()).into_response()
}
