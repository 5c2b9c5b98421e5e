//! The log: on standard error, text for people, JSON for machines.

use std::{fmt, io::IsTerminal, sync::Arc};

use tracing_subscriber::{
    EnvFilter, Layer, fmt::format::FmtSpan, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// How the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to tell, and to whom.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// Name of the program, for the collector.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as `info,h2=warn`.
    pub level: &'a str,
    /// Form of the log.
    pub format: LogFormat,
    /// URL of an OpenTelemetry collector (OTLP over gRPC), as `http://127.0.0.1:4317`.
    /// None: no traces.
    pub collector: Option<&'a str>,
}

/// Installs log and traces for the whole process.
pub fn install(setup: &Setup<'_>) -> Result<Telemetry, TelemetryError> {
    let filter = parse(setup.level)?;
    let (filter, level) = reload::Layer::new(filter);
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let log = match setup.format {
        LogFormat::Text => log
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    let log = log.with_filter(filter);
    let traces = Traces::start(setup)?;
    let registry = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otlp")]
    let registry = registry.with(traces.layer());
    registry
        .try_init()
        .map_err(|error| TelemetryError::Installed(error.to_string()))?;
    let set = move |text: &str| {
        let filter = parse(text)?;
        level
            .reload(filter)
            .map_err(|error| TelemetryError::Installed(error.to_string()))
    };
    Ok(Telemetry {
        level: LogLevel(Arc::new(set)),
        traces,
    })
}

fn parse(text: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |why: String| TelemetryError::Level {
        level: text.to_owned(),
        why,
    };
    if text.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| wrong(error.to_string()))
}

/// What [`install`] installed. To be [finished](Self::finish) before the process ends.
#[derive(Debug)]
pub struct Telemetry {
    level: LogLevel,
    traces: Traces,
}

impl Telemetry {
    /// To change the level while the process runs.
    pub fn log_level(&self) -> LogLevel {
        self.level.clone()
    }

    /// Sends what the collector has not got yet; waits for it a few seconds at most.
    pub fn finish(self) {
        self.traces.finish();
    }
}

/// The level of the log, changeable at run time.
#[derive(Clone)]
pub struct LogLevel(Arc<SetLevel>);

type SetLevel = dyn Fn(&str) -> Result<(), TelemetryError> + Send + Sync;

impl LogLevel {
    /// Logs from now on what this level or filter lets through; if it is not
    /// understood nothing changes.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        (self.0)(level)
    }

    /// Whether a level or filter is understood.
    pub fn check(level: &str) -> Result<(), TelemetryError> {
        parse(level).map(|_| ())
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}

/// Why log or traces are not installed, or the level is not changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no level and no filter.
    #[error(
        "the log level {level:?} is not understood ({why}): write error, warn, info, debug or trace"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// The collector's URL cannot be used.
    #[error("traces cannot be sent to {endpoint:?}: {why}")]
    Collector {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something was installed already, or is gone.
    #[error("the log cannot be opened: {0}")]
    Installed(String),
}

#[cfg(feature = "otlp")]
use crate::otlp::Traces;

/// This build sends no traces.
#[cfg(not(feature = "otlp"))]
#[derive(Debug)]
struct Traces;

#[cfg(not(feature = "otlp"))]
impl Traces {
    fn start(setup: &Setup<'_>) -> Result<Self, TelemetryError> {
        if setup.collector.is_some() {
            eprintln!(
                "{}: no traces are sent: this program was built without the feature `otlp`",
                setup.service
            );
        }
        Ok(Self)
    }

    fn finish(self) {}
}

/// A URL as it may be told: without the user and password that it may name by mistake.
pub fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.to_owned(),
    }
}

/// A collector's URL is `http://host:port`: one on this machine, or in this pod. It is
/// told in logs, so it names no user and no password.
pub fn check_collector(endpoint: &str) -> Result<(), TelemetryError> {
    let wrong = |why: &str| {
        Err(TelemetryError::Collector {
            endpoint: without_password(endpoint),
            why: why.to_owned(),
        })
    };
    match endpoint.parse::<http::Uri>() {
        _ if endpoint.contains('@') => wrong("it names a user: collectors have none here"),
        Ok(uri) if uri.scheme_str() == Some("https") => wrong(
            "TLS to a collector is not supported: send to a collector on this machine, which forwards",
        ),
        Ok(uri) if uri.scheme_str() == Some("http") && uri.authority().is_some() => Ok(()),
        _ => wrong("it is no URL of a collector: write http://127.0.0.1:4317"),
    }
}

/// A layer behind a filter of its own.
#[cfg(feature = "otlp")]
pub(crate) type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

#[cfg(test)]
mod tests;
