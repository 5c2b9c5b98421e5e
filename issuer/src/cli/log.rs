//! What the operator says of the log.

use clap::{Args, ValueEnum};
use telemetry::{Setup, Telemetry, TelemetryError};

use crate::config::Settings;

/// How the log looks.
#[derive(Debug, Clone, Args)]
pub(super) struct LogArgs {
    /// Least level that is logged: error, warn, info, debug, trace, or a filter
    /// such as issuer=debug,h2=warn [default: info].
    #[arg(long, env = "ISSUER_LOG_LEVEL", value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
    /// Form of the log.
    #[arg(
        long,
        env = "ISSUER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl LogArgs {
    pub(super) fn install(&self, settings: &Settings) -> Result<Telemetry, TelemetryError> {
        telemetry::install(&Setup {
            service: "issuer",
            version: env!("CARGO_PKG_VERSION"),
            level: &settings.log_level,
            format: match self.log_format {
                LogFormat::Text => telemetry::LogFormat::Text,
                LogFormat::Json => telemetry::LogFormat::Json,
            },
            collector: settings.otlp_endpoint.as_deref(),
        })
    }
}
