//! What the issuer measures: one table, from which every metric gets its help and its
//! buckets, and which the reference lists (a test compares all three).
//!
//! Names end in their unit. Labels have few values, all of our own making: no caller
//! can add a series.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// What kind of metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Type {
    /// Only rises; `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by upper bound.
    Histogram(&'static [f64]),
}

impl Type {
    /// As Prometheus calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, with unit.
    pub name: &'static str,
    /// Its kind.
    pub r#type: Type,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// From a request to its durable answer, in seconds.
const LATENCIES: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Of a signature, in seconds: an ECDSA one takes some 20 µs, an RSA one a millisecond.
const SIGNING: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05,
];
/// How many.
const COUNTS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    let r#type = Type::Counter;
    Metric {
        name,
        r#type,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    let r#type = Type::Gauge;
    Metric {
        name,
        r#type,
        labels,
        help,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    let r#type = Type::Histogram(buckets);
    Metric {
        name,
        r#type,
        labels,
        help,
    }
}

/// Every metric, in the order of its name. Whoever measures something new adds a line
/// here and in `docs/reference/issuer-operating.md`.
pub const METRICS: &[Metric] = &[
    counter(
        "issuer_admin_refused_total",
        &[],
        "Users refused on the admin socket",
    ),
    counter(
        "issuer_attributes_ignored_total",
        &["group"],
        "Attributes that were left out as unknown or of another type, by group",
    ),
    gauge(
        "issuer_audit_best_effort",
        &[],
        "1 while SVIDs are given that cannot be recorded (audit.required: false)",
    ),
    counter(
        "issuer_audit_file_rotations_total",
        &[],
        "Times that the file of audit records was rotated",
    ),
    counter(
        "issuer_audit_not_durable_total",
        &[],
        "Decisions on SVIDs that the store could not record",
    ),
    counter(
        "issuer_audit_sink_events_total",
        &["sink"],
        "Audit records that a sink took",
    ),
    counter(
        "issuer_audit_sink_failures_total",
        &["sink"],
        "Attempts at which an audit sink took nothing",
    ),
    gauge(
        "issuer_audit_sink_lag_events",
        &["sink"],
        "Audit records that a sink does not have yet",
    ),
    counter(
        "issuer_audit_sink_rejected_total",
        &["sink"],
        "Audit records that a sink will never take",
    ),
    gauge(
        "issuer_audit_sink_up",
        &["sink"],
        "Whether a sink takes audit records: 1, else 0",
    ),
    gauge(
        "issuer_bot_instances",
        &[],
        "Instances of bots that are known",
    ),
    gauge(
        "issuer_build_info",
        &["version"],
        "Version of the issuer; always 1",
    ),
    gauge(
        "issuer_ca_expiry_timestamp_seconds",
        &[],
        "End of validity of the CA certificate, in seconds since 1970",
    ),
    gauge("issuer_catalog_resources", &["kind"], "Resources, by kind"),
    gauge(
        "issuer_catalog_revision",
        &[],
        "Revision of the policy that decisions read",
    ),
    counter(
        "issuer_config_reloads_total",
        &["result"],
        "Reloads of the configuration (SIGHUP): success or failure",
    ),
    gauge("issuer_connections", &[], "Open connections of agents"),
    counter(
        "issuer_handshakes_total",
        &["result"],
        "TLS handshakes, by result",
    ),
    gauge(
        "issuer_identity_expiry_timestamp_seconds",
        &[],
        "End of validity of the issuer's own certificate, in seconds since 1970",
    ),
    counter(
        "issuer_issuances_total",
        &["type", "result"],
        "Answers to requests for SVIDs, by type and result (granted, or why not)",
    ),
    histogram(
        "issuer_issue_duration_seconds",
        &[],
        LATENCIES,
        "From request to durable record of an SVID",
    ),
    counter(
        "issuer_joins_total",
        &["result"],
        "Answers to joins, by result (granted, or why not)",
    ),
    gauge(
        "issuer_key_expiry_timestamp_seconds",
        &["use"],
        "End of the key that signs, in seconds since 1970, by use",
    ),
    gauge(
        "issuer_keys",
        &["use", "state"],
        "Keys of the issuer, by use and state (prepared, active, retired)",
    ),
    counter(
        "issuer_limited_total",
        &["limit"],
        "Calls refused because their caller is at a limit, by limit",
    ),
    gauge(
        "issuer_ready",
        &["check"],
        "Whether a part of the issuer works (1) or not (0), as /readyz says",
    ),
    counter(
        "issuer_renewals_total",
        &["result"],
        "Answers to renewals of bots, by result (granted, or why not)",
    ),
    histogram(
        "issuer_request_duration_seconds",
        &["method"],
        LATENCIES,
        "From the head of a call to that of its answer, by method",
    ),
    gauge(
        "issuer_requests_in_flight",
        &["method"],
        "Calls under way, streams too, by method",
    ),
    counter(
        "issuer_requests_total",
        &["method", "code"],
        "Calls answered, by method and gRPC status code; a stream counts as OK when it begins",
    ),
    histogram(
        "issuer_sign_duration_seconds",
        &["type"],
        SIGNING,
        "Signatures of the authority, by type of SVID",
    ),
    histogram(
        "issuer_store_batch_size",
        &[],
        COUNTS,
        "Pieces of work that shared a commit",
    ),
    histogram(
        "issuer_store_commit_duration_seconds",
        &[],
        LATENCIES,
        "Transactions of the writer",
    ),
    counter("issuer_store_failures_total", &[], "Commits that failed"),
    gauge(
        "issuer_store_queue_depth",
        &[],
        "Pieces of work that wait for the writer, or that it works on",
    ),
    counter(
        "issuer_store_reruns_total",
        &[],
        "Groups of work that were run again after a conflict with another issuer",
    ),
    counter(
        "issuer_strangers_cut_total",
        &[],
        "Connections without a bot certificate that were cut to make room for others",
    ),
    gauge("issuer_watch_streams", &[], "Open watch streams of agents"),
];

/// Installs the process's metrics recorder.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Type::Histogram(buckets) = metric.r#type {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    for metric in METRICS {
        match metric.r#type {
            Type::Counter => metrics::describe_counter!(metric.name, metric.help),
            Type::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Type::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    begin_at_zero();
    Ok(handle)
}

/// What is watched for its first rise is there from the start.
fn begin_at_zero() {
    metrics::gauge!("issuer_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for metric in METRICS {
        match metric.r#type {
            Type::Counter if metric.labels.is_empty() => {
                metrics::counter!(metric.name).absolute(0);
            }
            Type::Gauge if metric.labels.is_empty() => metrics::gauge!(metric.name).set(0.0),
            _ => {}
        }
    }
    for result in ["success", "failure"] {
        metrics::counter!("issuer_config_reloads_total", "result" => result).absolute(0);
    }
}

#[cfg(test)]
mod tests;
