//! `issuer bot add`, `instances`, `unlock`.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::admin::v1 as pb;
use serde_json::{Value, json};
use terminal::Format;

use super::{Target, client::Admin, output, resource::read_all};
use crate::resources::{Kind, Resource, Spec, wire};

#[derive(Debug, Subcommand)]
pub(super) enum BotCommand {
    /// Make a bot (or add roles to it) and a join token; print how to start its agent.
    Add(AddArgs),
    /// List joined instances.
    Instances(InstancesArgs),
    /// Remove the lock of an instance.
    Unlock(UnlockArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Name of the bot.
    name: String,
    /// Roles that it is to hold, beside those that it holds already.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,
    /// Life of the token [default: 30m, at most 24h].
    #[arg(long, value_name = "DURATION", value_parser = ::config::parse_duration)]
    ttl: Option<Duration>,
    /// Where the agent is to reach the issuer [default: as the issuer says].
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct InstancesArgs {
    /// Only of this bot.
    bot: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct UnlockArgs {
    /// BOT/INSTANCE, as `issuer bot instances` shows them.
    #[arg(value_name = "BOT/INSTANCE")]
    instance: String,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(command: BotCommand) -> anyhow::Result<()> {
    match command {
        BotCommand::Add(args) => add(args).await,
        BotCommand::Instances(args) => instances(args).await,
        BotCommand::Unlock(args) => unlock(args).await,
    }
}

async fn add(args: AddArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::AddBotRequest {
        name: args.name.clone(),
        roles: args.roles,
        token_ttl: args.ttl.map(|ttl| prost_types::Duration {
            seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or(0),
        }),
    };
    let added = match admin.client().add_bot(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    let address = args
        .address
        .unwrap_or_else(|| reachable(&added.grpc_address));
    let roles = match added.bot.as_ref().and_then(|bot| bot.spec.clone()) {
        Some(pb::resource::Spec::Bot(bot)) => bot.roles,
        _ => Vec::new(),
    };
    if args.output == Format::Json {
        return terminal::print_json(&json!({
            "bot": args.name,
            "roles": roles,
            "token": added.token,
            "token_expires": output::time(added.token_expires),
            "ca_pin": added.ca_pin,
            "address": address,
        }));
    }
    let name = &args.name;
    let (token, pin) = (&added.token, &added.ca_pin);
    let expires = output::time(added.token_expires);
    let service = match first_selected(&mut admin, &roles).await? {
        Some(identity) => service(name, &identity),
        None => no_service(name),
    };
    let roles = match roles.is_empty() {
        true => "no roles: it may have nothing until it holds one".to_owned(),
        false => format!("roles: {}", roles.join(", ")),
    };
    terminal::print(&format!(
        "bot {name} ({roles})\n\
         \n\
         token    {token}\n\
         \x20        works once, until {expires}; it is not shown again\n\
         CA pin   {pin}\n\
         \n\
         To start its agent, paste this on the agent's machine (`tbot-proxy check -c` tells of mistakes):\n\
         \n\
         cat > tbot-{name}.yaml <<'EOF'\n\
         version: v1\n\
         issuer:\n\
         \x20 address: {address}\n\
         \x20 ca_pins: [\"{pin}\"]\n\
         onboarding: {{ join_method: token }} # the token comes in TBOT_TOKEN\n\
         storage: {{ type: directory, path: ./tbot-{name} }}\n\
         {service}\
         EOF\n\
         TBOT_TOKEN={token} tbot-proxy start -c tbot-{name}.yaml\n"
    ))
}

/// Name of the first workload identity that the roles select.
async fn first_selected(admin: &mut Admin, roles: &[String]) -> anyhow::Result<Option<String>> {
    let mut selectors = Vec::with_capacity(roles.len());
    for resource in all(admin, Kind::Role).await? {
        if let Spec::Role(role) = &resource.spec
            && roles
                .iter()
                .any(|name| name == resource.metadata.name.as_str())
        {
            selectors.push(role.workload_identity_labels.clone());
        }
    }
    let identities = all(admin, Kind::WorkloadIdentity).await?;
    let selected = identities.iter().find(|identity| {
        let labels = &identity.metadata.labels;
        selectors.iter().any(|selector| selector.matches(labels))
    });
    Ok(selected.map(|identity| identity.metadata.name.to_string()))
}

async fn all(admin: &mut Admin, kind: Kind) -> anyhow::Result<Vec<Resource>> {
    let found = read_all(admin, kind, Vec::new()).await?;
    let read = found.into_iter().map(wire::from_wire);
    Ok(read.collect::<Result<_, _>>()?)
}

/// A first service of the agent: the identity as files.
fn service(bot: &str, identity: &str) -> String {
    format!(
        "services:\n\
         \x20 - type: workload-identity-x509\n\
         \x20   name: {identity}\n\
         \x20   selector: {{ name: {identity} }}\n\
         \x20   destination: {{ type: directory, path: ./tbot-{bot}-svid }}\n"
    )
}

/// What is to be done before there can be one.
fn no_service(bot: &str) -> String {
    format!(
        "# No role of this bot selects a workload_identity, so there is nothing to serve yet, and\n\
         # tbot-proxy does not start without a service. Apply a workload_identity and a role that\n\
         # selects it, run `issuer bot add {bot} --roles ROLE`, and name the identity here:\n\
         # services:\n\
         #   - type: workload-identity-x509\n\
         #     name: NAME\n\
         #     selector: {{ name: NAME }}\n\
         #     destination: {{ type: directory, path: ./tbot-{bot}-svid }}\n"
    )
}

/// An address that stands for every interface is no address to dial: this
/// machine's name is put in its place.
fn reachable(address: &str) -> String {
    let Ok(socket) = address.parse::<std::net::SocketAddr>() else {
        return address.to_owned();
    };
    if !socket.ip().is_unspecified() {
        return address.to_owned();
    }
    let name = rustix::system::uname();
    let host = name.nodename().to_str().unwrap_or("localhost");
    format!("{host}:{}", socket.port())
}

async fn instances(args: InstancesArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::ListBotInstancesRequest {
        bot_name: args.bot.unwrap_or_default(),
    };
    let found = match admin.client().list_bot_instances(request).await {
        Ok(answer) => answer.into_inner().instances,
        Err(status) => return Err(admin.failed(status)),
    };
    if args.output == Format::Json {
        let shown = found.iter().map(|instance| {
            json!({
                "bot_name": instance.bot_name,
                "instance_id": instance.instance_id,
                "generation": instance.generation,
                "joined": output::time(instance.joined),
                "last_renewed": output::time(instance.last_renewed),
                "not_after": output::time(instance.not_after),
                "hostname": instance.hostname,
                "locked_reason": instance.locked_reason,
            })
        });
        return terminal::print_json(&Value::Array(shown.collect()));
    }
    let rows = found
        .into_iter()
        .map(|instance| {
            vec![
                format!("{}/{}", instance.bot_name, instance.instance_id),
                instance.generation.to_string(),
                output::time(instance.last_renewed),
                output::time(instance.not_after),
                instance.hostname,
                instance.locked_reason,
            ]
        })
        .collect();
    let header = [
        "INSTANCE",
        "GENERATION",
        "RENEWED",
        "NOT AFTER",
        "HOST",
        "LOCKED",
    ];
    terminal::print_table(&header, rows)
}

async fn unlock(args: UnlockArgs) -> anyhow::Result<()> {
    let Some((bot_name, instance_id)) = args.instance.split_once('/') else {
        let given = &args.instance;
        anyhow::bail!(
            "{given:?} names no instance: write BOT/INSTANCE, as `issuer bot instances` shows them"
        );
    };
    let mut admin = args.target.connect().await?;
    let request = pb::UnlockBotInstanceRequest {
        bot_name: bot_name.to_owned(),
        instance_id: instance_id.to_owned(),
    };
    if let Err(status) = admin.client().unlock_bot_instance(request).await {
        return Err(admin.failed(status));
    }
    terminal::print(&format!("{} unlocked\n", args.instance))
}
