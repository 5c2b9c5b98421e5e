//! The command line. Exit status 0: done; 1: it could not be done, one line on
//! standard error says why and what to do; 2: the command was not understood.

mod audit;
mod bot;
mod client;
mod log;
mod output;
mod resource;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::Given;

use self::{
    audit::AuditArgs,
    bot::BotCommand,
    client::Target,
    log::LogArgs,
    resource::{ApplyArgs, DeleteArgs, GetArgs},
    status::{BundleArgs, RenewNowArgs, StatusArgs},
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
    /// Show trust domain, CA pin, CA expiry and addresses.
    Status(StatusArgs),
    /// Print the trust bundle.
    Bundle(BundleArgs),
    /// Create or replace resources from YAML: all of them, or none.
    Apply(ApplyArgs),
    /// Show resources.
    Get(GetArgs),
    /// Remove a resource.
    Delete(DeleteArgs),
    /// Make bots, list and unlock their instances.
    #[command(subcommand)]
    Bot(BotCommand),
    /// Show the audit log.
    Audit(AuditArgs),
    /// Tell every agent to renew its identities now.
    RenewNow(RenewNowArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// YAML file with the same settings (`data_dir`, `trust_domain`, …).
    #[arg(short, long, env = "ISSUER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the state, made at first start with mode 0700
    /// [default: ./issuer-data].
    #[arg(long, env = "ISSUER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
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
    #[command(flatten)]
    log: LogArgs,
}

impl ServeArgs {
    fn given(self) -> Given {
        Given {
            data_dir: self.data_dir,
            trust_domain: self.trust_domain,
            listen: self.listen,
            public_address: self.public_address,
            diagnostics: self.diagnostics,
            diagnostics_anywhere: self.diagnostics_anywhere,
            key_file: self.key_file,
            admin_socket: self.socket,
            admin_uids: self.admin_uid,
            bot_ttl: self.bot_ttl,
            ca_ttl: self.ca_ttl,
            wit: self.wit,
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(execute(cli.command)),
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
        Command::Status(args) => status::status(args).await,
        Command::Bundle(args) => status::bundle(args).await,
        Command::Apply(args) => resource::apply(args).await,
        Command::Get(args) => resource::get(args).await,
        Command::Delete(args) => resource::delete(args).await,
        Command::Bot(command) => bot::run(command).await,
        Command::Audit(args) => audit::run(args).await,
        Command::RenewNow(args) => status::renew_now(args).await,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    args.log.install()?;
    // Keys in memory: no core dump, no debugger of the same user.
    if let Err(error) = sys::harden_process() {
        tracing::warn!(%error, "the process could not be hardened");
    }
    let file = match &args.config {
        Some(path) => Given::from_file(path)?,
        None => Given::default(),
    };
    let settings = args.given().or(file).resolve()?;
    Ok(crate::serve::serve(settings).await?)
}

#[cfg(test)]
mod tests;
