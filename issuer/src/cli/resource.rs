//! `issuer apply`, `get`, `delete`.

use std::{io::Read, path::PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use proto::admin::v1 as pb;
use serde_json::Value;

use super::{Target, output};
use crate::resources::{Kind, yaml};

/// `issuer apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// YAML file of resources, `---` between them; `-`: standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

/// `issuer get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// KIND or KIND/NAME, where KIND is bot, role, token or workload_identity.
    #[arg(value_name = "KIND[/NAME]")]
    resource: String,
    /// Form of the answer; yaml is what `apply` takes (not for tokens: their secret
    /// is not kept).
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: GetFormat,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GetFormat {
    Table,
    Yaml,
    Json,
}

/// `issuer delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// KIND/NAME.
    #[arg(value_name = "KIND/NAME")]
    resource: String,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn apply(args: ApplyArgs) -> anyhow::Result<()> {
    let (name, text) = if args.file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| anyhow!("standard input cannot be read: {error}"))?;
        ("-".to_owned(), text)
    } else {
        let name = args.file.display().to_string();
        let text = std::fs::read_to_string(&args.file)
            .map_err(|error| anyhow!("{name:?} cannot be read ({error}): correct -f"))?;
        (name, text)
    };
    let resources = yaml::read(&name, &text).map_err(|mistakes| anyhow!(mistakes))?;
    if resources.is_empty() {
        return Err(anyhow!("{name}: there is no resource in it"));
    }
    let mut admin = args.target.connect().await?;
    let request = pb::ApplyResourcesRequest {
        resources,
        ..Default::default()
    };
    let answer = match admin.client().apply_resources(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    let mut text = String::new();
    for result in &answer.results {
        use pb::applied_resource::Outcome;
        let reference = result.resource.as_ref().map(output::reference);
        let outcome = match result.outcome() {
            Outcome::Created => "created",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
            Outcome::Unspecified => "applied",
        };
        text.push_str(&format!("{} {outcome}\n", reference.unwrap_or_default()));
    }
    output::print(&text)
}

pub(super) async fn get(args: GetArgs) -> anyhow::Result<()> {
    let (kind, name) = match args.resource.split_once('/') {
        Some((kind, name)) => (kind, name),
        None => (args.resource.as_str(), ""),
    };
    let kind: Kind = kind.parse()?;
    let mut admin = args.target.connect().await?;
    let request = pb::GetResourcesRequest {
        kind: kind.to_string(),
        name: name.to_owned(),
        ..Default::default()
    };
    let found = match admin.client().get_resources(request).await {
        Ok(answer) => answer.into_inner().resources,
        Err(status) => return Err(admin.failed(status)),
    };
    match args.output {
        GetFormat::Yaml => output::print(&yaml::write(&found)),
        GetFormat::Json => {
            let shown: Vec<_> = found.iter().map(yaml::to_json).collect();
            output::print_json(&Value::Array(shown))
        }
        GetFormat::Table => {
            let rows = found.iter().map(row).collect();
            output::print_table(&["NAME", "LABELS", about(kind), "REVISION"], rows)
        }
    }
}

fn about(kind: Kind) -> &'static str {
    match kind {
        Kind::Bot => "ROLES",
        Kind::Role => "WORKLOAD IDENTITIES",
        Kind::Token => "BOT, EXPIRES",
        Kind::WorkloadIdentity => "PATH",
        Kind::Lock => "TARGET",
        Kind::SpiffeFederation => "",
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
        Some(pb::resource::Spec::Lock(_) | pb::resource::Spec::SpiffeFederation(_)) => {
            String::new()
        }
        Some(pb::resource::Spec::Bot(bot)) => bot.roles.join(", "),
        Some(pb::resource::Spec::Role(role)) => role
            .workload_identity_labels
            .iter()
            .map(|selector| format!("{}={}", selector.key, selector.values.join("|")))
            .collect::<Vec<_>>()
            .join(", "),
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

pub(super) async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let Some((kind, name)) = args.resource.split_once('/') else {
        let given = &args.resource;
        return Err(anyhow!(
            "{given:?} names no resource: write KIND/NAME, as role/web"
        ));
    };
    let kind: Kind = kind.parse()?;
    let mut admin = args.target.connect().await?;
    let request = pb::DeleteResourceRequest {
        kind: kind.to_string(),
        name: name.to_owned(),
        ..Default::default()
    };
    if let Err(status) = admin.client().delete_resource(request).await {
        return Err(admin.failed(status));
    }
    output::print(&format!("{kind}/{name} deleted\n"))
}
