//! The command line. Exit status 0: done; 1: it could not be done, one line on
//! standard error says why and what to do; 2: the command was not understood.

mod apply;
mod attributes;
mod audit;
mod authority;
mod backup;
mod bot;
mod check;
mod client;
mod delete;
mod edit;
mod explain;
mod lock;
mod log;
mod output;
mod policy_test;
mod resource;
mod resource_files;
mod status;
mod store_args;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{Given, Source};

use self::{
    apply::ApplyArgs,
    attributes::AttributesArgs,
    audit::{AuditArgs, AuditFlags},
    authority::AuthorityCommand,
    backup::{BackupArgs, RestoreArgs},
    bot::BotCommand,
    check::CheckArgs,
    client::Target,
    delete::DeleteArgs,
    edit::EditArgs,
    explain::ExplainArgs,
    lock::LockArgs,
    log::LogArgs,
    policy_test::TestArgs,
    resource::GetArgs,
    status::{BundleArgs, RenewNowArgs, StatusArgs},
    store_args::StoreArgs,
};

/// The certificate authority and system of record of a trust domain.
#[derive(Debug, Parser)]
#[command(name = "issuer", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the issuer. Without arguments: state in ./issuer-data, gRPC on port 3025.
    Serve(Box<ServeArgs>),
    /// Report every mistake of a configuration file with its line and column.
    Check(CheckArgs),
    /// Show trust domain, CA pin, CA expiry and addresses.
    Status(StatusArgs),
    /// Print the trust bundle.
    Bundle(BundleArgs),
    /// Create or replace resources from YAML: all of them, or none.
    Apply(ApplyArgs),
    /// Show resources.
    Get(GetArgs),
    /// Remove resources.
    Delete(DeleteArgs),
    /// Change a resource in an editor ($VISUAL or $EDITOR).
    Edit(EditArgs),
    /// Refuse a bot, instance, token, role or identity from now on.
    Lock(LockArgs),
    /// Show what rules and templates can ask of a caller.
    Attributes(AttributesArgs),
    /// Make bots, list and unlock their instances.
    #[command(subcommand)]
    Bot(BotCommand),
    /// List and rotate the issuer's own keys.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Say why a bot gets an identity, or does not.
    Explain(ExplainArgs),
    /// Run table tests of policy, on files or on the running issuer.
    Test(TestArgs),
    /// Search, follow, verify and export the audit trail.
    Audit(AuditArgs),
    /// Tell every agent to renew its identities now.
    RenewNow(RenewNowArgs),
    /// Write everything that the store holds into a file, while the issuer serves.
    Backup(BackupArgs),
    /// Fill an empty store (of either kind) from a backup; the issuer must not run on it.
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Trust domain, fixed at first start [default: example.org].
    #[arg(long, env = "ISSUER_TRUST_DOMAIN", value_name = "NAME")]
    trust_domain: Option<String>,
    /// Where agents connect [default: 0.0.0.0:3025].
    #[arg(long, env = "ISSUER_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// What agents are told to connect to, if it is not the listen address.
    #[arg(long, env = "ISSUER_PUBLIC_ADDRESS", value_name = "HOST:PORT")]
    public_address: Option<String>,
    /// Where /livez, /readyz and /metrics are served [default: 127.0.0.1:3081].
    #[arg(long, env = "ISSUER_DIAGNOSTICS", value_name = "ADDRESS")]
    diagnostics: Option<String>,
    /// Let diagnostics listen on an address that other machines reach, as probes of
    /// containers need. They are neither encrypted nor authenticated.
    #[arg(
        long,
        env = "ISSUER_DIAGNOSTICS_ANYWHERE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    diagnostics_anywhere: Option<bool>,
    /// File that encrypts the CA's key [default: ca.kek in the data directory].
    #[arg(long, env = "ISSUER_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Admin socket [default: admin.sock in the data directory].
    #[arg(long, env = "ISSUER_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A user who may administrate, beside root and the issuer's own. Repeatable.
    /// Needs a --socket outside the data directory, which is closed to others.
    #[arg(
        long,
        env = "ISSUER_ADMIN_UIDS",
        value_name = "UID",
        value_delimiter = ','
    )]
    admin_uid: Vec<u32>,
    /// Life of bot certificates [default: 1h].
    #[arg(long, env = "ISSUER_BOT_TTL", value_name = "DURATION")]
    bot_ttl: Option<String>,
    /// Life of the issuer's own keys; each is rotated at two thirds of it [default: 90d].
    #[arg(long, env = "ISSUER_CA_TTL", value_name = "DURATION")]
    ca_ttl: Option<String>,
    /// Also issue WIT-SVIDs (SPIFFE: incubating). The trust bundle then has keys of the
    /// use wit-svid, which some SPIFFE implementations cannot read yet.
    #[arg(
        long,
        env = "ISSUER_WIT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    wit: Option<bool>,
    /// `iss` of JWT-SVIDs: the https URL under which OIDC libraries reach this issuer's
    /// port [default: JWT-SVIDs have no iss].
    #[arg(long, env = "ISSUER_JWT_ISSUER", value_name = "URL")]
    jwt_issuer: Option<String>,
    /// Let agents ask which gRPC services there are (reflection). Operators always may.
    #[arg(
        long,
        env = "ISSUER_REFLECTION",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    reflection: Option<bool>,
    /// Send traces to this OpenTelemetry collector (OTLP over gRPC), as
    /// http://127.0.0.1:4317.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    audit: AuditFlags,
    #[command(flatten)]
    log: LogArgs,
    /// Check flags, environment and file; say what is wrong and do not run.
    #[arg(long)]
    check: bool,
}

impl ServeArgs {
    fn source(self) -> Source {
        let given = Given {
            data_dir: self.store.data_dir,
            database: self.store.database,
            trust_domain: self.trust_domain,
            listen: self.listen,
            public_address: self.public_address,
            diagnostics: self.diagnostics,
            diagnostics_anywhere: self.diagnostics_anywhere,
            key_file: self.key_file,
            admin_socket: self.socket,
            admin_uids: self.admin_uid,
            audit: self.audit.given(),
            bot_ttl: self.bot_ttl,
            ca_ttl: self.ca_ttl,
            wit: self.wit,
            jwt_issuer: self.jwt_issuer,
            log_level: self.log.log_level,
            reflection: self.reflection,
            otlp_endpoint: self.otlp_endpoint.filter(|endpoint| !endpoint.is_empty()),
            limits: None,
        };
        Source {
            given,
            file: self.store.config,
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let command = match Cli::parse().command {
        Command::Check(args) => return check::check(args),
        command => command,
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(execute(command)),
        Err(error) => Err(anyhow::anyhow!("the runtime cannot start: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("issuer: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve(*args).await,
        // It needs no runtime, and has been done.
        Command::Check(_) => Ok(()),
        Command::Status(args) => status::status(args).await,
        Command::Bundle(args) => status::bundle(args).await,
        Command::Apply(args) => apply::apply(args).await,
        Command::Get(args) => resource::get(args).await,
        Command::Delete(args) => delete::delete(args).await,
        Command::Edit(args) => edit::edit(args).await,
        Command::Lock(args) => lock::lock(args).await,
        Command::Attributes(args) => attributes::attributes(&args),
        Command::Bot(command) => bot::run(command).await,
        Command::Authority(command) => authority::run(command).await,
        Command::Explain(args) => explain::explain(args).await,
        Command::Test(args) => policy_test::test(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::RenewNow(args) => status::renew_now(args).await,
        Command::Backup(args) => backup::backup(args).await,
        Command::Restore(args) => backup::restore(args).await,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let (log, only_check) = (args.log.clone(), args.check);
    let source = args.source();
    let settings = source.read()?;
    if only_check {
        println!("no mistakes");
        return Ok(());
    }
    let telemetry = log.install(&settings)?;
    // Keys in memory: no core dump, no debugger of the same user.
    if let Err(error) = sys::harden_process() {
        tracing::warn!(%error, "the process could not be hardened");
    }
    let served = crate::serve::serve(source, settings, telemetry.log_level()).await;
    // It waits for the collector, which is not to hold up the runtime.
    let finished = tokio::task::spawn_blocking(|| telemetry.finish());
    // An error: it panicked, which has been told.
    let _ = finished.await;
    Ok(served?)
}

#[cfg(test)]
mod tests;
