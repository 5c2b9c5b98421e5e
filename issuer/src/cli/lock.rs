//! `issuer lock`: refuses someone from now on. `issuer delete lock/NAME` ends it.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use proto::admin::v1::{self as pb, lock_spec::Target as On};

use super::{Target, apply};

/// `issuer lock`.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    on: OnArgs,
    /// Why; told in the audit event of each refusal.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// How long [default: until it is deleted].
    #[arg(long, value_name = "DURATION", value_parser = ::config::parse_duration)]
    ttl: Option<Duration>,
    /// Name of the lock [default: lock- and some digits].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct OnArgs {
    /// Every instance of this bot.
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,
    /// This joined instance (`issuer bot instances` shows them).
    #[arg(long, value_name = "UUID")]
    bot_instance_id: Option<String>,
    /// This join token, by the name that `issuer get token` shows.
    #[arg(long, value_name = "NAME")]
    join_token: Option<String>,
    /// Every holder of this role, for what it lets them have.
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// This workload identity.
    #[arg(long, value_name = "NAME")]
    workload_identity: Option<String>,
    /// This SPIFFE ID.
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
}

impl OnArgs {
    fn target(self) -> Option<On> {
        self.bot
            .map(On::Bot)
            .or(self.bot_instance_id.map(On::BotInstanceId))
            .or(self.join_token.map(On::JoinToken))
            .or(self.role.map(On::Role))
            .or(self.workload_identity.map(On::WorkloadIdentity))
            .or(self.spiffe_id.map(On::SpiffeId))
    }
}

pub(super) async fn lock(args: LockArgs) -> anyhow::Result<()> {
    let expires =
        match args.ttl {
            None => None,
            Some(ttl) => Some(SystemTime::now().checked_add(ttl).ok_or_else(|| {
                anyhow!("--ttl is too long: leave it out for a lock without an end")
            })?),
        };
    let id = uuid::Uuid::new_v4().simple().to_string();
    let name = args.name.unwrap_or_else(|| format!("lock-{}", &id[..12]));
    let resource = pb::Resource {
        metadata: Some(pb::Metadata {
            name,
            expires: expires.map(prost_types::Timestamp::from),
            ..Default::default()
        }),
        spec: Some(pb::resource::Spec::Lock(pb::LockSpec {
            target: args.on.target(),
            message: args.message,
        })),
    };
    let mut admin = args.target.connect().await?;
    let results = apply::send(&mut admin, vec![resource], false).await?;
    terminal::print(&apply::told(&results))
}
