//! `issuer audit`: search, verify, export, checkpoint.

mod export;
mod flags;
mod read;
mod search;
mod time;
mod verify;

use clap::{Args, Subcommand};

pub(super) use self::flags::AuditFlags;
use self::{
    export::{CheckpointArgs, ExportArgs},
    search::SearchArgs,
    verify::VerifyArgs,
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    search: SearchArgs,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Show records by time, event, bot, id, serial number. `issuer audit` alone does
    /// the same.
    Search(SearchArgs),
    /// Check that no record was changed, removed, moved or inserted. Exit status 1 names
    /// the first bad one.
    Verify(VerifyArgs),
    /// Print the newest signed checkpoint, to be kept elsewhere for `verify --checkpoint`.
    Checkpoint(CheckpointArgs),
    /// Write records as JSON lines that can be verified elsewhere.
    Export(ExportArgs),
}

pub(super) async fn run(args: AuditArgs) -> anyhow::Result<()> {
    match args.command {
        None => search::run(args.search).await,
        Some(AuditCommand::Search(args)) => search::run(args).await,
        Some(AuditCommand::Verify(args)) => verify::run(args).await,
        Some(AuditCommand::Checkpoint(args)) => export::checkpoint(args).await,
        Some(AuditCommand::Export(args)) => export::run(args).await,
    }
}
