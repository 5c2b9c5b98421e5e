//! The log: on standard error, text for people, JSON for machines.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How the log looks.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Least level that is logged: error, warn, info, debug, trace, or a filter
    /// such as issuer=debug,h2=warn.
    #[arg(
        long,
        env = "ISSUER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    log_level: String,
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
    pub(super) fn install(&self) -> anyhow::Result<()> {
        let level = &self.log_level;
        let filter = EnvFilter::builder().parse(level).map_err(|error| {
            anyhow::anyhow!(
                "the log level {level:?} is not understood ({error}): write error, warn, info, debug or trace"
            )
        })?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        let installed = match self.log_format {
            LogFormat::Text => log
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .try_init(),
            LogFormat::Json => log.json().flatten_event(true).try_init(),
        };
        installed.map_err(|error| anyhow::anyhow!("the log cannot be opened: {error}"))
    }
}
