//! The command line of `loadtest issue`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use prost_types::value::Kind as ValueKind;

use super::{LoadArgs, Resolved, WindowArgs, duration};
use crate::{
    address::Address,
    client_tls::{Cipher, Group},
    issue::{
        Ledger, Plan,
        agents::Enrolment,
        wanted::{Document, Key, Pattern, Selection, Wanted},
    },
    run::Work,
};

/// Items that an issuer takes in one call.
const MOST_ITEMS: usize = 1_000;
/// Keys made before the run, unless a call needs more.
const KEYS: usize = 256;

/// Kind of SVID to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// X509-SVID.
    X509,
    /// JWT-SVID.
    Jwt,
    /// WIT-SVID.
    Wit,
}

/// `issue`
#[derive(Debug, Args)]
pub struct IssueArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// End after this many measured calls.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Calls per second over all agents (open loop).
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    wanted: WantedArgs,
    /// Admin socket of the issuer: agents without an identity join with tokens from there.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Bot that the agents join as; `{n}` stands for an agent's number.
    #[arg(long, default_value = "loadtest", value_name = "NAME")]
    bot: String,
    /// Roles that the bot gets.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    roles: Vec<String>,
    /// Directory of the agents' identities; those that join are kept there for the next run.
    #[arg(long, value_name = "DIR")]
    identities: Option<PathBuf>,
    /// Another issuer of the same store, tried when the one before cannot be used.
    #[arg(long, value_name = "ADDRESS", value_parser = Address::from_str)]
    fallback: Vec<Address>,
    /// Write the serial number or `jti` of every SVID received to this file, one a line.
    #[arg(long, value_name = "FILE")]
    issued: Option<PathBuf>,
    /// Key exchange group.
    #[arg(long, value_enum, default_value_t = Group::X25519)]
    group: Group,
    /// Cipher suite.
    #[arg(long, value_enum, default_value_t = Cipher::Aes128gcm)]
    cipher: Cipher,
}

/// What is asked for.
#[derive(Debug, Args)]
pub struct WantedArgs {
    /// Ask for the workload identity of this name; `{n}` stands for a number (see --numbers).
    #[arg(long, value_name = "NAME", required_unless_present = "labels")]
    workload_identity: Option<String>,
    /// Ask for those with this label: KEY=VALUE[,VALUE]; repeated: all must match.
    #[arg(long, value_name = "LABEL", conflicts_with = "workload_identity", value_parser = label)]
    labels: Vec<(Pattern, Vec<Pattern>)>,
    /// `{n}` is drawn evenly from 0 up to this, exclusive.
    #[arg(long, default_value_t = 1)]
    numbers: u64,
    /// Kind of SVID.
    #[arg(long, value_enum, default_value_t = Kind::X509)]
    kind: Kind,
    /// Audience of JWT-SVIDs.
    #[arg(long, default_value = "loadtest")]
    audience: Vec<String>,
    /// Items of a call.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// With --labels: SVIDs that an item may get at most, each with a key of its own.
    #[arg(long, default_value_t = 1, requires = "labels")]
    svids_per_item: usize,
    /// Life of the SVIDs, such as 10m; absent: the resource's default.
    #[arg(long, value_parser = duration)]
    ttl: Option<Duration>,
    /// File with the workload's attributes, a JSON object.
    #[arg(long, value_name = "FILE")]
    attributes: Option<PathBuf>,
    /// Make the keys of each call anew (the load then costs far more).
    #[arg(long)]
    fresh_keys: bool,
}

/// A run for which the agents have yet to get their identities.
#[derive(Debug)]
pub struct Orders {
    resolved: Resolved,
    enrolment: Enrolment,
}

impl IssueArgs {
    /// Checks and resolves what can be before the issuer is spoken to.
    pub fn resolve(self) -> anyhow::Result<Orders> {
        if self.admin_socket.is_none() && self.identities.is_none() {
            bail!("the agents have no identities: name --admin-socket, --identities or both");
        }
        for fallback in &self.fallback {
            fallback.check_target(self.load.allow_private)?;
        }
        let bounds = self.window.bounds(self.load.timeout, self.count)?;
        let plan = Plan {
            wanted: self.wanted.resolve()?,
            issued: self.issued.as_deref().map(Ledger::create).transpose()?,
        };
        let work = Work::Issue(Arc::new(plan));
        let threads = self.window.threads;
        let mut resolved = self
            .load
            .resolve("issue", work, bounds, threads, self.rate)?;
        resolved.load.fallbacks = self.fallback;
        Ok(Orders {
            resolved,
            enrolment: Enrolment {
                admin_socket: self.admin_socket,
                bot: Pattern(self.bot),
                roles: self.roles,
                identities: self.identities,
                group: self.group,
                cipher: self.cipher,
            },
        })
    }
}

impl Orders {
    /// Gets every agent its identity.
    pub fn enrol(mut self) -> anyhow::Result<Resolved> {
        let load = &mut self.resolved.load;
        let (agents, timeout) = (load.connections, load.bounds.op_timeout);
        load.tls = self.enrolment.agents(&load.target, agents, timeout)?;
        Ok(self.resolved)
    }
}

impl WantedArgs {
    fn resolve(self) -> anyhow::Result<Wanted> {
        let Self {
            batch,
            svids_per_item,
            numbers,
            ..
        } = self;
        ensure!(
            (1..=MOST_ITEMS).contains(&batch),
            "--batch {batch}: from 1 to {MOST_ITEMS}"
        );
        ensure!(
            (1..=MOST_ITEMS).contains(&svids_per_item),
            "--svids-per-item {svids_per_item}: from 1 to {MOST_ITEMS}"
        );
        ensure!(numbers > 0, "--numbers 0: at least 1");
        let selection = match self.workload_identity {
            Some(name) => Selection::Name(Pattern(name)),
            None => Selection::Labels(self.labels),
        };
        let mut wanted = Wanted {
            selection,
            numbers,
            document: match self.kind {
                Kind::X509 => Document::X509,
                Kind::Jwt => Document::Jwt(self.audience),
                Kind::Wit => Document::Wit,
            },
            ttl: self.ttl,
            attributes: self.attributes.as_deref().map(attributes).transpose()?,
            batch,
            keys_per_item: svids_per_item,
            keys: Vec::new(),
            fresh_keys: self.fresh_keys,
        };
        let keys = match wanted.keys_per_call() {
            0 => 0,
            _ if wanted.fresh_keys => 0,
            needed => needed.max(KEYS),
        };
        wanted.keys = (0..keys)
            .map(|_| Key::generate())
            .collect::<Result<_, _>>()?;
        Ok(wanted)
    }
}

/// Reads `KEY=VALUE[,VALUE]`.
fn label(text: &str) -> anyhow::Result<(Pattern, Vec<Pattern>)> {
    let (key, values) = text
        .split_once('=')
        .filter(|(key, values)| !key.is_empty() && !values.is_empty())
        .with_context(|| format!("`{text}` is no label: write KEY=VALUE or KEY=VALUE,VALUE"))?;
    let pattern = |text: &str| Pattern(text.to_owned());
    Ok((pattern(key), values.split(',').map(pattern).collect()))
}

/// Reads a JSON object from a file.
fn attributes(path: &Path) -> anyhow::Result<prost_types::Struct> {
    let named = || format!("--attributes {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    match value(&serde_json::from_str(&text).with_context(named)?).kind {
        Some(ValueKind::StructValue(object)) => Ok(object),
        _ => bail!("{}: not a JSON object", named()),
    }
}

fn value(json: &serde_json::Value) -> prost_types::Value {
    use serde_json::Value;
    let kind = match json {
        Value::Null => ValueKind::NullValue(0),
        Value::Bool(value) => ValueKind::BoolValue(*value),
        Value::Number(number) => ValueKind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => ValueKind::StringValue(text.clone()),
        Value::Array(values) => ValueKind::ListValue(prost_types::ListValue {
            values: values.iter().map(value).collect(),
        }),
        Value::Object(members) => ValueKind::StructValue(prost_types::Struct {
            fields: members
                .iter()
                .map(|(name, member)| (name.clone(), value(member)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
