//! Probes and metrics over HTTP, on loopback unless the operator wants otherwise:
//! `/livez`, `/readyz` (JSON, 503 with reasons while not ready), `/metrics`.
//!
//! Who stalls or floods is bounded in time and number, so that the next probe is
//! answered.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use crate::service::Issuer;

/// Upper bounds of the latency histograms, in seconds.
const LATENCIES: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Connections of probes and scrapers at most. They have to be few: each takes one
/// of the files that the listener of agents leaves.
const CONNECTIONS_MAX: usize = 16;
/// How long a request's head may take, and the wait for the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last: who scrapes comes back.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// How long to wait after an accept that failed for want of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often measurements are folded together.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the process's metrics recorder.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCIES)?
        .set_buckets_for_metric(
            Matcher::Full("issuer_store_batch_size".to_owned()),
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0],
        )?;
    let handle = builder.install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "issuer_issuances_total",
        "Answers to requests for SVIDs, by type and result (granted, or why not)"
    );
    describe_counter!("issuer_joins_total", "Answers to joins, by result");
    describe_counter!(
        "issuer_renewals_total",
        "Answers to renewals of bots, by result"
    );
    describe_counter!("issuer_handshakes_total", "TLS handshakes, by result");
    describe_counter!(
        "issuer_strangers_cut_total",
        "Connections without a bot certificate that were cut to make room for others"
    );
    describe_counter!("issuer_store_failures_total", "Commits that failed");
    describe_counter!(
        "issuer_admin_refused_total",
        "Users refused on the admin socket"
    );
    describe_gauge!("issuer_connections", "Open connections of agents");
    describe_gauge!("issuer_watch_streams", "Open watch streams of agents");
    describe_gauge!(
        "issuer_ca_expiry_timestamp_seconds",
        "End of validity of the CA certificate, in seconds since 1970"
    );
    describe_histogram!(
        "issuer_issue_duration_seconds",
        "From request to durable record of an SVID"
    );
    describe_histogram!(
        "issuer_store_commit_duration_seconds",
        "Transactions of the writer"
    );
    describe_histogram!("issuer_store_batch_size", "Requests that shared a commit");
}

/// What the probes look at.
#[derive(Debug, Clone)]
struct Probes {
    issuer: Arc<Issuer>,
    metrics: PrometheusHandleDebug,
    draining: watch::Receiver<bool>,
}

#[derive(Clone)]
struct PrometheusHandleDebug(PrometheusHandle);

impl std::fmt::Debug for PrometheusHandleDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrometheusHandle")
    }
}

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    issuer: Arc<Issuer>,
    metrics: PrometheusHandle,
    draining: watch::Receiver<bool>,
) {
    let expiry = issuer
        .keyring()
        .x509()
        .not_after()
        .duration_since(UNIX_EPOCH);
    metrics::gauge!("issuer_ca_expiry_timestamp_seconds")
        .set(expiry.unwrap_or_default().as_secs_f64());
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Probes {
            issuer,
            metrics: PrometheusHandleDebug(metrics),
            draining,
        });
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

async fn ready(State(probes): State<Probes>) -> impl IntoResponse {
    let mut reasons = Vec::new();
    if *probes.draining.borrow() {
        reasons.push("the issuer is stopping".to_owned());
    }
    if let Some(trouble) = probes.issuer.store.trouble() {
        reasons.push(trouble);
    }
    if probes.issuer.keyring().x509().not_after() <= SystemTime::now() {
        reasons.push(
            "the CA certificate has ended: the log says what kept the issuer from rotating it"
                .to_owned(),
        );
    }
    let warnings: Vec<_> = probes
        .issuer
        .keyring()
        .end_is_near(SystemTime::now())
        .into_iter()
        .collect();
    let code = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "ready": reasons.is_empty(), "reasons": reasons, "warnings": warnings });
    (code, Json(body))
}

async fn scrape(State(probes): State<Probes>) -> impl IntoResponse {
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (kind, probes.metrics.0.render())
}
