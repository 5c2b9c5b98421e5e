//! The command line.

mod attest;
mod aws_credential_process;
mod debug;
mod endpoint;
mod install;
mod jwt;
mod output;
mod service;
mod status;
mod svid;
mod wait;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use ::config::parse_duration;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use telemetry::{LogLevel, Setup, Telemetry, TelemetryError};

use crate::{
    agent::{self, AgentError, Term},
    configuration::{Configuration, ConfigurationError, Overrides, Source},
};

use aws_credential_process::AwsCredentialProcess;
use wait::Wait;

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
    /// Prints the configuration that `start SERVICE` would run with these flags.
    Configure(Configure),
    /// Looks into a running agent: its log, its time and its memory.
    #[command(subcommand)]
    Debug(debug::Debug),
    /// Waits until a running agent is ready.
    Wait(Wait),
    /// Credentials of AWS for the SVID of an output, as a `credential_process` prints them.
    AwsCredentialProcess(Box<AwsCredentialProcess>),
    /// Reports every mistake of a configuration file with its line and column.
    Check(ConfigurationFile),
    /// The agent on one screen: identities, expiry, followers, issuer, trouble.
    Status(status::StatusArgs),
    #[command(subcommand)]
    Svid(svid::Svid),
    #[command(subcommand)]
    Jwt(jwt::Jwt),
    #[command(subcommand)]
    Bundle(Bundle),
    Attest(attest::AttestArgs),
    #[command(subcommand)]
    Install(install::Install),
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes all pages into a directory.
    Man {
        /// Where to write `tbot-proxy.1`, `tbot-proxy-start.1` and so on.
        directory: Option<PathBuf>,
    },
    /// Prints the version.
    Version,
}

/// Trust bundles as a workload gets them.
#[derive(Debug, Subcommand)]
enum Bundle {
    /// Prints trust bundles.
    Show(svid::BundleShow),
}

#[derive(Debug, Args)]
struct ConfigurationFile {
    /// Configuration file.
    #[arg(short, long, env = "TBOT_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "SERVICE",
    subcommand_help_heading = "Services"
)]
struct Start {
    /// Configuration file.
    #[arg(short, long, env = "TBOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    agent: AgentFlags,
    #[command(flatten)]
    term: TermFlags,
    /// One service by flags, without a file.
    #[command(subcommand)]
    service: Option<service::Service>,
}

/// How long the agent runs, and what it leaves.
#[derive(Debug, Args)]
struct TermFlags {
    /// Writes every output once and ends: 0 if all are written, 1 if not.
    #[arg(long, global = true, env = "TBOT_ONESHOT")]
    oneshot: bool,
    /// How long --oneshot may take.
    #[arg(long, global = true, env = "TBOT_ONESHOT_TIMEOUT", value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    oneshot_timeout: Duration,
    /// Removes what outputs wrote when the agent ends.
    #[arg(long, global = true, env = "TBOT_WIPE_ON_EXIT")]
    wipe_on_exit: bool,
}

impl TermFlags {
    fn term(&self) -> Term {
        Term {
            once: self.oneshot.then_some(self.oneshot_timeout),
            wipe_on_exit: self.wipe_on_exit,
        }
    }
}

#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "SERVICE",
    subcommand_help_heading = "Services"
)]
struct Configure {
    #[command(flatten)]
    agent: AgentFlags,
    #[command(subcommand)]
    service: service::Service,
}

/// Of the agent as a whole.
#[derive(Debug, Args)]
struct AgentFlags {
    /// Overrides issuer.address and issuer.addresses: host:port.
    #[arg(
        long,
        global = true,
        env = "TBOT_ISSUER",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    issuer: Vec<String>,
    /// Overrides issuer.ca_pins: sha256:<64 hexadecimal digits>.
    #[arg(
        long,
        global = true,
        env = "TBOT_CA_PIN",
        value_name = "PIN",
        value_delimiter = ','
    )]
    ca_pin: Vec<String>,
    /// Overrides onboarding.token: a token, or the path of its file. Others see a flag in the
    /// list of processes: prefer the environment or a file.
    #[arg(long, global = true, env = "TBOT_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    token: Option<SecretString>,
    /// Overrides storage: a directory, or `memory`.
    #[arg(long, global = true, env = "TBOT_STORAGE", value_name = "PATH")]
    storage: Option<String>,
    /// Overrides diagnostics.listen.
    #[arg(long, global = true, env = "TBOT_DIAGNOSTICS", value_name = "ADDRESS")]
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
            Command::Configure(configure) => ended(configure.run()),
            Command::Check(file) => check(&file),
            Command::Status(args) => ended(endpoint::block_on(args.run())),
            Command::Svid(command) => ended(endpoint::block_on(command.run())),
            Command::Jwt(command) => ended(endpoint::block_on(command.run())),
            Command::Bundle(Bundle::Show(args)) => ended(endpoint::block_on(args.run())),
            Command::Attest(args) => ended(endpoint::block_on(args.run())),
            Command::Debug(command) => ended(endpoint::block_on(command.run())),
            Command::Install(install::Install::Systemd(args)) => ended(args.run()),
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "tbot-proxy", &mut text);
                ended(terminal::print(&String::from_utf8_lossy(&text)))
            }
            Command::Man { directory } => ended(manual(directory)),
            Command::Wait(wait) => wait.run(),
            Command::AwsCredentialProcess(process) => process.run(),
            Command::Start(start) => {
                let collector = self.otlp_endpoint.filter(|endpoint| !endpoint.is_empty());
                match install(self.log_format, &self.log_level, collector.as_deref()) {
                    Ok(telemetry) => {
                        let level = (telemetry.log_level(), self.log_level);
                        let code = run(start, level);
                        telemetry.finish();
                        code
                    }
                    Err(error) => fail(&error),
                }
            }
        }
    }
}

/// How a command that asks ended: in a line, if not well.
fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tbot-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn manual(directory: Option<PathBuf>) -> anyhow::Result<()> {
    match directory {
        Some(directory) => Ok(clap_mangen::generate_to(Cli::command(), directory)?),
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text)?;
            terminal::print(&String::from_utf8_lossy(&text))
        }
    }
}

fn run(start: Start, level: (LogLevel, String)) -> ExitCode {
    prepare_process();
    crate::systemd::take_sockets();
    let source = match start.source() {
        Ok(source) => source,
        // Wrong usage, as clap has it.
        Err(error) => {
            _ = ended(Err(error));
            return ExitCode::from(2);
        }
    };
    match agent::run(source, start.agent.overrides(), start.term.term(), level) {
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
    /// The file, or what the flags come to.
    fn source(&self) -> anyhow::Result<Source> {
        match (&self.service, &self.config) {
            (Some(service), _) => {
                let text = service.configuration(&self.agent.head())?;
                Ok(Source::Flags(text))
            }
            (None, Some(file)) => Ok(Source::File(file.clone())),
            (None, None) => anyhow::bail!(
                "nothing to start: name a configuration with -c (TBOT_CONFIG), or a service, as in `start workload-identity-api`"
            ),
        }
    }
}

impl Configure {
    fn run(self) -> anyhow::Result<()> {
        let text = self.service.configuration(&self.agent.head())?;
        Configuration::read(&Source::Flags(text.clone()), &Overrides::default())?;
        terminal::print(&text)
    }
}

impl AgentFlags {
    fn head(&self) -> service::Head {
        use secrecy::ExposeSecret;
        let overrides = self.overrides();
        let token = overrides.token.as_ref().map(|token| token.expose_secret());
        service::Head {
            token_file: token
                .filter(|token| token.starts_with('/'))
                .map(str::to_owned),
            issuer: overrides.issuer,
            ca_pins: overrides.ca_pins,
            storage: overrides.storage,
            diagnostics: overrides.diagnostics,
        }
    }

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
    match Configuration::read(&Source::File(file.config.clone()), &Overrides::default()) {
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

/// Keys stay out of core files, capabilities are not for hooks, and connections are not
/// bounded by a soft limit.
fn prepare_process() {
    if let Err(error) = sys::keep_capabilities_from_children() {
        tracing::warn!(%error, "hooks may have capabilities of this process");
    }
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

#[cfg(test)]
mod tests;
