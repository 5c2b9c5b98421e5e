//! `issuer get`, and how one resource is named.

use std::fmt;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use proto::admin::v1 as pb;
use serde_json::Value;

use super::{Target, client::Admin, output};
use crate::resources::{Kind, yaml};

/// `issuer get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// KIND or KIND/NAME, where KIND is bot, role, token, workload_identity, lock,
    /// spiffe_federation or sigstore_policy.
    #[arg(value_name = "KIND[/NAME]")]
    resource: String,
    /// Form of the answer; yaml is what `apply` takes (not for tokens: their secret
    /// is not kept).
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: GetFormat,
    /// Only those with this label; KEY alone: with any value of it. Several keys must
    /// all match, several values of one key are alternatives. Repeatable.
    #[arg(
        short = 'l',
        long = "label",
        value_name = "KEY[=VALUE]",
        value_delimiter = ','
    )]
    labels: Vec<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GetFormat {
    Table,
    Yaml,
    Json,
}

pub(super) async fn get(args: GetArgs) -> anyhow::Result<()> {
    let labels = selectors(&args.labels)?;
    let mut admin;
    let (kind, found) = match args.resource.split_once('/') {
        Some(_) if !labels.is_empty() => {
            return Err(anyhow!(
                "-l selects among many: write the KIND without a NAME"
            ));
        }
        Some(_) => {
            let reference = Reference::parse(&args.resource)?;
            admin = args.target.connect().await?;
            let resource = read_one(&mut admin, &reference).await?;
            (reference.kind, vec![resource])
        }
        None => {
            let kind: Kind = args.resource.parse()?;
            admin = args.target.connect().await?;
            (kind, read_all(&mut admin, kind, labels).await?)
        }
    };
    match args.output {
        GetFormat::Yaml => terminal::print(&yaml::write(&found)),
        GetFormat::Json => {
            terminal::print_json(&Value::Array(found.iter().map(yaml::to_json).collect()))
        }
        GetFormat::Table => {
            let rows = found.iter().map(row).collect();
            terminal::print_table(&["NAME", "LABELS", about(kind), "REVISION"], rows)
        }
    }
}

/// `key=value`, `key` for any value; values of one key are alternatives.
fn selectors(labels: &[String]) -> anyhow::Result<Vec<pb::LabelSelector>> {
    let mut selectors: Vec<pb::LabelSelector> = Vec::new();
    for label in labels {
        let (key, value) = label.split_once('=').unwrap_or((label, "*"));
        if key.is_empty() {
            return Err(anyhow!(
                "{label:?} is no label: write KEY=VALUE, or KEY for any value"
            ));
        }
        match selectors.iter_mut().find(|selector| selector.key == key) {
            Some(selector) => selector.values.push(value.to_owned()),
            None => selectors.push(pb::LabelSelector {
                key: key.to_owned(),
                values: vec![value.to_owned()],
            }),
        }
    }
    Ok(selectors)
}

/// The one of this name. None is an error.
pub(super) async fn read_one(
    admin: &mut Admin,
    reference: &Reference,
) -> anyhow::Result<pb::Resource> {
    let request = pb::GetResourcesRequest {
        kind: reference.kind.to_string(),
        name: reference.name.clone(),
        ..Default::default()
    };
    let found = match admin.client().get_resources(request).await {
        Ok(answer) => answer.into_inner().resources.pop(),
        Err(status) => return Err(admin.failed(status)),
    };
    found.ok_or_else(|| anyhow!("there is no {reference}"))
}

/// All of a kind that the labels select, page by page.
pub(super) async fn read_all(
    admin: &mut Admin,
    kind: Kind,
    labels: Vec<pb::LabelSelector>,
) -> anyhow::Result<Vec<pb::Resource>> {
    let mut found: Vec<pb::Resource> = Vec::new();
    loop {
        let last = found.last().and_then(|last| last.metadata.as_ref());
        let request = pb::GetResourcesRequest {
            kind: kind.to_string(),
            after: last.map_or(String::new(), |last| last.name.clone()),
            labels: labels.clone(),
            ..Default::default()
        };
        let page = match admin.client().get_resources(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Err(admin.failed(status)),
        };
        let more = page.more && !page.resources.is_empty();
        found.extend(page.resources);
        if !more {
            return Ok(found);
        }
    }
}

/// `KIND/NAME`.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Reference {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() => Ok(Self {
                kind: kind.parse()?,
                name: name.to_owned(),
            }),
            _ => Err(anyhow!(
                "{text:?} names no resource: write KIND/NAME, as role/web"
            )),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

fn about(kind: Kind) -> &'static str {
    match kind {
        Kind::Bot => "ROLES",
        Kind::Role => "WORKLOAD IDENTITIES",
        Kind::Token => "BOT, EXPIRES",
        Kind::WorkloadIdentity => "PATH",
        Kind::Lock => "ON, UNTIL",
        Kind::SpiffeFederation => "BUNDLE",
        Kind::SigstorePolicy => "BY",
    }
}

fn row(resource: &pb::Resource) -> Vec<String> {
    let metadata = resource.metadata.clone().unwrap_or_default();
    let mut labels: Vec<_> = metadata
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    let about = match &resource.spec {
        Some(pb::resource::Spec::Lock(lock)) => {
            let on = target(lock.target.as_ref());
            match metadata.expires {
                Some(expires) => format!("{on}, {}", output::time(Some(expires))),
                None => on,
            }
        }
        Some(pb::resource::Spec::SpiffeFederation(_)) => "static".to_owned(),
        Some(pb::resource::Spec::SigstorePolicy(policy)) => match &policy.authority {
            Some(pb::sigstore_policy_spec::Authority::Key(_)) => "a key".to_owned(),
            Some(pb::sigstore_policy_spec::Authority::Keyless(_)) => "identities".to_owned(),
            None => String::new(),
        },
        Some(pb::resource::Spec::Bot(bot)) => bot.roles.join(", "),
        Some(pb::resource::Spec::Role(role)) => {
            let allowed = selected(&role.workload_identity_labels);
            match role.deny_workload_identity_labels.as_slice() {
                [] => allowed,
                denied => format!("{allowed}; not {}", selected(denied)),
            }
        }
        Some(pb::resource::Spec::Token(token)) => {
            format!("{}, {}", token.bot_name, output::time(metadata.expires))
        }
        Some(pb::resource::Spec::WorkloadIdentity(spec)) => spec.spiffe_path.clone(),
        None => String::new(),
    };
    vec![
        metadata.name,
        labels.join(", "),
        about,
        metadata.revision.to_string(),
    ]
}

fn selected(selectors: &[pb::LabelSelector]) -> String {
    let keys: Vec<_> = selectors
        .iter()
        .map(|selector| format!("{}={}", selector.key, selector.values.join("|")))
        .collect();
    keys.join(", ")
}

fn target(target: Option<&pb::lock_spec::Target>) -> String {
    use pb::lock_spec::Target;
    match target {
        None => String::new(),
        Some(Target::Bot(name)) => format!("bot {name}"),
        Some(Target::BotInstanceId(id)) => format!("bot instance {id}"),
        Some(Target::JoinToken(name)) => format!("join token {name}"),
        Some(Target::Role(name)) => format!("role {name}"),
        Some(Target::WorkloadIdentity(name)) => format!("workload identity {name}"),
        Some(Target::SpiffeId(id)) => id.clone(),
    }
}
