//! The agent's own metrics: names, and what they mean. The proxy adds its own;
//! those of each service are made from its state ([`crate::state::Health::gauges`]).

use metrics::{Unit, describe_counter, describe_gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub(crate) const BUILD_INFO: &str = "tbot_build_info";
pub(crate) const BOT_EXPIRY: &str = "tbot_bot_identity_expiry_timestamp_seconds";
pub(crate) const SVID_EXPIRY: &str = "tbot_svid_expiry_timestamp_seconds";
pub(crate) const IDENTITY_EXPIRY: &str = "tbot_identity_expiry_timestamp_seconds";
pub(crate) const OFFLINE_BUDGET: &str = "tbot_identity_offline_budget_seconds";
pub(crate) const CACHE: &str = "tbot_identity_cache_requests_total";
pub(crate) const RENEWALS: &str = "tbot_identity_renewals_total";
pub(crate) const SERVICE_READY: &str = "tbot_service_ready";
pub(crate) const OUTPUT_WRITES: &str = "tbot_output_writes_total";
pub(crate) const OUTPUT_HOOKS: &str = "tbot_output_hooks_total";
pub(crate) const SEALED_WRITES: &str = "tbot_sealed_store_writes_total";
pub(crate) const RELOADS: &str = "tbot_config_reloads_total";
pub(crate) const BUNDLE_UPDATES: &str = "tbot_trust_bundle_updates_total";
pub(crate) const ISSUER_WATCHED: &str = "tbot_issuer_watch_connected";
pub(crate) const RECORDS_DROPPED: &str = "tbot_connection_records_dropped_total";

/// Bounds of every histogram whose name ends in `_seconds`.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// Installs the recorder of this process.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    describe_gauge!(BUILD_INFO, "Version of the agent; always 1");
    describe_gauge!(
        BOT_EXPIRY,
        Unit::Seconds,
        "When the bot identity expires, since 1970"
    );
    describe_counter!(
        RENEWALS,
        "Attempts to obtain or renew an identity, by result"
    );
    describe_counter!(
        CACHE,
        "Times that SVIDs were looked for in the cache, by kind and result"
    );
    describe_counter!(OUTPUT_WRITES, "Sets written by outputs, by result");
    describe_counter!(OUTPUT_HOOKS, "Hooks of outputs that were run, by result");
    describe_counter!(SEALED_WRITES, "Changes of the sealed store, by result");
    describe_counter!(RELOADS, "Reloads of the configuration, by result");
    describe_counter!(BUNDLE_UPDATES, "Changes of the trust bundles");
    describe_gauge!(
        ISSUER_WATCHED,
        "Whether the issuer's pushes are being followed"
    );
    describe_counter!(
        RECORDS_DROPPED,
        "Connection records that found the queue full"
    );
    workload_api::describe_metrics();
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // Rates of what never happened are 0, not absent.
    metrics::counter!(RECORDS_DROPPED).absolute(0);
    for result in ["success", "failure"] {
        metrics::counter!(RELOADS, "result" => result).absolute(0);
    }
    Ok(handle)
}

/// Seconds since 1970, for a gauge.
pub(crate) fn timestamp(time: std::time::SystemTime) -> f64 {
    time.duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64().floor())
}

/// `success` or `failure`.
pub(crate) fn result(succeeded: bool) -> &'static str {
    if succeeded { "success" } else { "failure" }
}
