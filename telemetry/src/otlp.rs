//! Traces to an OpenTelemetry collector, over OTLP/gRPC.
//!
//! Only spans of our own programs are sent: what libraries tell of themselves may
//! hold what they carry. Sending has a thread of its own, a bounded queue (what
//! does not fit is dropped) and never holds up what is traced. The standard
//! variables `OTEL_TRACES_SAMPLER`, `OTEL_BSP_…`, `OTEL_RESOURCE_ATTRIBUTES` hold.

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource, propagation::TraceContextPropagator, trace::SdkTracer, trace::SdkTracerProvider,
};
use tokio::runtime::Runtime;
use tracing_subscriber::{Layer, filter::FilterFn, registry::LookupSpan};

use crate::log::{BoxedLayer, Setup, TelemetryError, check_collector};

/// How long one batch may take to send.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last batch.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// Crates whose spans are sent.
const OURS: [&str; 3] = ["issuer", "tbot_proxy", "telemetry"];

/// How trace context travels.
pub(crate) fn propagator() -> TraceContextPropagator {
    TraceContextPropagator::new()
}

/// Who tells: for exporters of our own signals (traces, audit events).
pub fn resource(service: &'static str, version: &'static str) -> Resource {
    Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", version))
        .build()
}

/// A runtime for exporters: they need one, and are not to use that of the work.
pub fn exporting_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp")
        .enable_all()
        .build()
}

/// The traces of this process.
#[derive(Debug)]
pub(crate) struct Traces(Option<Exporting>);

#[derive(Debug)]
struct Exporting {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    runtime: Runtime,
}

impl Traces {
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, TelemetryError> {
        let Some(endpoint) = setup.collector else {
            return Ok(Self(None));
        };
        check_collector(endpoint)?;
        let failed = |why: String| TelemetryError::Collector {
            endpoint: endpoint.to_owned(),
            why,
        };
        let runtime = exporting_runtime().map_err(|error| failed(error.to_string()))?;
        let exporter = {
            let _inside = runtime.enter();
            opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(|error| failed(error.to_string()))?
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource(setup.service, setup.version))
            .build();
        let tracer = provider.tracer(setup.service);
        Ok(Self(Some(Exporting {
            provider,
            tracer,
            runtime,
        })))
    }

    /// Follows spans of ours, down to `debug`. None: nobody is told.
    pub(crate) fn layer<S>(&self) -> Option<BoxedLayer<S>>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let exporting = self.0.as_ref()?;
        let ours = FilterFn::new(|metadata| {
            metadata.is_span()
                && *metadata.level() <= tracing::Level::DEBUG
                && OURS.contains(&metadata.target().split(':').next().unwrap_or_default())
        })
        .with_max_level_hint(tracing::level_filters::LevelFilter::DEBUG);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(exporting.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours);
        Some(layer.boxed())
    }

    pub(crate) fn finish(self) {
        let Some(exporting) = self.0 else { return };
        if let Err(error) = exporting.provider.shutdown_with_timeout(FINISH_TIMEOUT) {
            tracing::warn!(%error, "the last traces were not sent");
        }
        exporting.runtime.shutdown_background();
    }
}
