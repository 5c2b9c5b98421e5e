//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use telemetry::{LogLevel, Setup, Telemetry, TelemetryError};

use crate::{
    agent::{self, AgentError},
    configuration::{Configuration, ConfigurationError, Overrides},
};

/// The agent: joins the issuer, keeps identities fresh, writes them out, and
/// carries traffic over SPIFFE mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "tbot-proxy", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of the log, on standard error.
    #[arg(long, global = true, env = "TBOT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,proxy=debug`.
    #[arg(long, global = true, env = "TBOT_LOG_LEVEL", default_value = "info", value_parser = log_level)]
    log_level: String,
    /// Sends traces to this OpenTelemetry collector (OTLP over gRPC), as http://127.0.0.1:4317.
    #[arg(
        long,
        global = true,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    otlp_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent. SIGHUP reloads the file, SIGUSR1 renews every identity, SIGTERM drains and ends.
    Start(Start),
    /// Reports every mistake of a configuration file with its line and column.
    Check(ConfigurationFile),
    /// Prints the version.
    Version,
}

#[derive(Debug, Args)]
struct ConfigurationFile {
    /// Configuration file.
    #[arg(short, long, env = "TBOT_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    file: ConfigurationFile,
    /// Overrides issuer.address and issuer.addresses: host:port.
    #[arg(
        long,
        env = "TBOT_ISSUER",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    issuer: Vec<String>,
    /// Overrides issuer.ca_pins: sha256:<64 hexadecimal digits>.
    #[arg(long, env = "TBOT_CA_PIN", value_name = "PIN", value_delimiter = ',')]
    ca_pin: Vec<String>,
    /// Overrides onboarding.token: a token, or the path of its file. Others see a flag in the
    /// list of processes: prefer the environment or a file.
    #[arg(long, env = "TBOT_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    token: Option<SecretString>,
    /// Overrides storage: a directory, or `memory`.
    #[arg(long, env = "TBOT_STORAGE", value_name = "PATH")]
    storage: Option<String>,
    /// Overrides diagnostics.listen.
    #[arg(long, env = "TBOT_DIAGNOSTICS", value_name = "ADDRESS")]
    diagnostics: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Cli {
    /// Does what the command line says; the exit status (0; 1 for what went wrong).
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Version => {
                println!("tbot-proxy {}", env!("CARGO_PKG_VERSION"));
                ExitCode::SUCCESS
            }
            Command::Check(file) => check(&file),
            Command::Start(start) => {
                let collector = self.otlp_endpoint.filter(|endpoint| !endpoint.is_empty());
                match install(self.log_format, &self.log_level, collector.as_deref()) {
                    Ok(telemetry) => {
                        let code = run(start);
                        telemetry.finish();
                        code
                    }
                    Err(error) => fail(&error),
                }
            }
        }
    }
}

fn run(start: Start) -> ExitCode {
    prepare_process();
    let overrides = start.overrides();
    match agent::run(start.file.config, overrides) {
        Ok(code) => code,
        Err(AgentError::Configuration(error)) => complain(&error),
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("tbot-proxy: {error}");
    ExitCode::FAILURE
}

impl Start {
    /// What is set. An empty environment variable is not.
    fn overrides(&self) -> Overrides {
        use secrecy::ExposeSecret;
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let all_set = |texts: &[String]| {
            let set = texts.iter().filter(|text| !text.is_empty());
            set.cloned().collect()
        };
        Overrides {
            issuer: all_set(&self.issuer),
            ca_pins: all_set(&self.ca_pin),
            token: self
                .token
                .clone()
                .filter(|token| !token.expose_secret().is_empty()),
            storage: set(&self.storage),
            diagnostics: set(&self.diagnostics),
        }
    }
}

fn check(file: &ConfigurationFile) -> ExitCode {
    match Configuration::read(&file.config, &Overrides::default()) {
        Ok(configuration) => {
            let count = configuration.services.len();
            let services = if count == 1 { "service" } else { "services" };
            println!("{}: no mistakes, {count} {services}", file.config.display());
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error),
    }
}

/// Mistakes of a file as they are, for editors to jump to; all else under our name.
fn complain(error: &ConfigurationError) -> ExitCode {
    match error {
        ConfigurationError::Mistakes(mistakes) => eprintln!("{mistakes}"),
        error => return fail(error),
    }
    ExitCode::FAILURE
}

/// Keys stay out of core files, and connections are not bounded by a soft limit.
fn prepare_process() {
    if let Err(error) = sys::harden_process() {
        tracing::warn!(%error, "the process is not hardened");
    }
    if let Err(error) = sys::raise_file_limit() {
        tracing::warn!(%error, "the limit of open files is not raised");
    }
}

fn install(
    format: LogFormat,
    level: &str,
    collector: Option<&str>,
) -> Result<Telemetry, TelemetryError> {
    telemetry::install(&Setup {
        service: "tbot-proxy",
        version: env!("CARGO_PKG_VERSION"),
        level,
        format: match format {
            LogFormat::Text => telemetry::LogFormat::Text,
            LogFormat::Json => telemetry::LogFormat::Json,
        },
        collector,
    })
}

fn token(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

fn log_level(text: &str) -> Result<String, TelemetryError> {
    LogLevel::check(text).map(|()| text.to_owned())
}
