//! `issuer authority list`, `rotate`, `withdraw`.

use clap::{Args, Subcommand};
use proto::admin::v1 as pb;
use serde_json::json;
use terminal::Format;

use super::{Target, output};

#[derive(Debug, Subcommand)]
pub(super) enum AuthorityCommand {
    /// List the issuer's own keys: what each signs, and where it stands in its life.
    List(ListArgs),
    /// Have keys succeeded before their time. The issuer rotates them by itself; this is
    /// for a key that is to go earlier.
    Rotate(RotateArgs),
    /// Take a key that does not sign (any more) out of the trust bundle at once, before
    /// what it signed has ended: for one that others may know. Rotate it --now, order
    /// `issuer renew-now`, then this.
    Withdraw(WithdrawArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// Which keys: x509, jwt-es256, jwt-rs256, wit, audit [default: all].
    #[arg(long = "use", value_name = "USE", value_delimiter = ',')]
    uses: Vec<String>,
    /// Let the successors sign at once. Otherwise they are published first, for as long
    /// as everybody who follows the trust bundle needs to learn of them.
    #[arg(long)]
    now: bool,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct WithdrawArgs {
    /// Which key, as `issuer authority list` names it.
    #[arg(value_name = "KEY")]
    key_id: String,
    /// Also while bot instances hold a certificate of this CA: they have to join anew.
    #[arg(long)]
    force: bool,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(command: AuthorityCommand) -> anyhow::Result<()> {
    match command {
        AuthorityCommand::List(args) => list(args).await,
        AuthorityCommand::Rotate(args) => rotate(args).await,
        AuthorityCommand::Withdraw(args) => withdraw(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::ListAuthoritiesRequest {};
    match admin.client().list_authorities(request).await {
        Ok(answer) => show(args.output, &answer.into_inner().authorities),
        Err(status) => Err(admin.failed(status)),
    }
}

async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::RotateAuthoritiesRequest {
        uses: args.uses,
        at_once: args.now,
    };
    let rotated = match admin.client().rotate_authorities(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    if rotated.steps == 0 && args.output == Format::Table {
        terminal::print("their successors are prepared already\n\n")?;
    }
    show(args.output, &rotated.authorities)
}

async fn withdraw(args: WithdrawArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::WithdrawAuthorityRequest {
        key_id: args.key_id,
        even_if_held: args.force,
    };
    match admin.client().withdraw_authority(request).await {
        Ok(answer) => show(args.output, &answer.into_inner().authorities),
        Err(status) => Err(admin.failed(status)),
    }
}

fn show(format: Format, authorities: &[pb::Authority]) -> anyhow::Result<()> {
    if format == Format::Json {
        let shown: Vec<_> = authorities
            .iter()
            .map(|key| {
                json!({
                    "key_id": key.key_id,
                    "use": key.r#use,
                    "state": key.state,
                    "ca_pin": key.ca_pin,
                    "created": output::time(key.created),
                    "activated": output::time(key.activated),
                    "retired": output::time(key.retired),
                    "not_after": output::time(key.not_after),
                    "next": output::time(key.next),
                })
            })
            .collect();
        return terminal::print_json(&json!(shown));
    }
    let rows = authorities
        .iter()
        .map(|key| {
            vec![
                key.r#use.clone(),
                key.state.clone(),
                key.key_id.clone(),
                output::time(key.created),
                output::time(key.not_after),
                next(key),
            ]
        })
        .collect();
    terminal::print_table(&["USE", "STATE", "KEY", "MADE", "ENDS", "NEXT"], rows)
}

/// What happens to it next.
fn next(key: &pb::Authority) -> String {
    let what = match key.state.as_str() {
        "prepared" => "signs from",
        "active" => "successor at",
        _ => "leaves at",
    };
    match output::time(key.next) {
        time if time.is_empty() => "stays listed".to_owned(),
        time => format!("{what} {time}"),
    }
}
