//! `issuer status`, `bundle`, `renew-now`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::admin::v1 as pb;
use serde_json::json;
use terminal::Format;

use super::{Target, output};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    /// Form of the bundle: PEM certificates, or the SPIFFE bundle document.
    #[arg(short, long, value_name = "FORMAT", default_value = "pem")]
    output: BundleFormat,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BundleFormat {
    Pem,
    Spiffe,
}

#[derive(Debug, Args)]
pub(super) struct RenewNowArgs {
    /// Spread the renewals over this time [default: at once].
    #[arg(long, value_name = "DURATION", value_parser = ::config::parse_duration)]
    within: Option<Duration>,
    #[command(flatten)]
    target: Target,
}

async fn ask(target: &Target) -> anyhow::Result<pb::GetStatusResponse> {
    let mut admin = target.connect().await?;
    match admin.client().get_status(pb::GetStatusRequest {}).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(admin.failed(status)),
    }
}

pub(super) async fn status(args: StatusArgs) -> anyhow::Result<()> {
    let status = ask(&args.target).await?;
    let expiry = output::time(status.ca_not_after);
    if args.output == Format::Json {
        return terminal::print_json(&json!({
            "trust_domain": status.trust_domain,
            "ca_pin": status.ca_pin,
            "ca_not_after": expiry,
            "grpc_address": status.grpc_address,
            "diagnostics_address": status.diagnostics_address,
            "version": status.version,
        }));
    }
    terminal::print(&format!(
        "trust domain  {}\nCA pin        {}\nCA expires    {expiry}\ngRPC          {}\ndiagnostics   {}\nversion       {}\n",
        status.trust_domain,
        status.ca_pin,
        status.grpc_address,
        status.diagnostics_address,
        status.version,
    ))
}

pub(super) async fn bundle(args: BundleArgs) -> anyhow::Result<()> {
    let status = ask(&args.target).await?;
    match args.output {
        BundleFormat::Pem => terminal::print(&status.ca_pem),
        BundleFormat::Spiffe => {
            let text = String::from_utf8(status.spiffe_bundle_json)?;
            terminal::print(&format!("{}\n", text.trim_end()))
        }
    }
}

pub(super) async fn renew_now(args: RenewNowArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::RenewNowRequest {
        within: args.within.map(|within| prost_types::Duration {
            seconds: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(within.subsec_nanos()).unwrap_or(0),
        }),
    };
    match admin.client().renew_now(request).await {
        Ok(answer) => {
            let epoch = answer.into_inner().renew_epoch;
            terminal::print(&format!("agents are told to renew (epoch {epoch})\n"))
        }
        Err(status) => Err(admin.failed(status)),
    }
}
