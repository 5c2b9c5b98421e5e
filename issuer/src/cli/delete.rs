//! `issuer delete`.

use anyhow::anyhow;
use clap::Args;
use proto::admin::v1 as pb;

use super::{Target, resource::Reference, resource_files::Files};
use crate::resources::{Kind, TokenSecret, yaml};

/// `issuer delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// KIND/NAME. Repeatable.
    #[arg(value_name = "KIND/NAME", required_unless_present = "file")]
    resources: Vec<String>,
    /// Delete only if it is at this revision.
    #[arg(long, value_name = "NUMBER", conflicts_with = "file")]
    revision: Option<u64>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    target: Target,
}

/// Deletes each by itself: what cannot be is told, and the others go on.
pub(super) async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let revision = args.revision.unwrap_or(0);
    let mut wanted = Vec::with_capacity(args.resources.len());
    for named in &args.resources {
        wanted.push((Reference::parse(named)?, revision));
    }
    if !args.files.file.is_empty() {
        let read = args.files.resources()?;
        wanted.extend(read.iter().filter_map(listed));
    }
    // A bot goes before its roles, which are held until then.
    wanted.sort_by_key(|(reference, _)| match reference.kind {
        Kind::Token => 0,
        Kind::Bot => 1,
        _ => 2,
    });
    let mut admin = args.target.connect().await?;
    let mut failed = Vec::new();
    for (reference, revision) in wanted {
        let request = pb::DeleteResourceRequest {
            kind: reference.kind.to_string(),
            name: reference.name.clone(),
            revision,
        };
        match admin.client().delete_resource(request).await {
            Ok(_) => terminal::print(&format!("{reference} deleted\n"))?,
            Err(status) => failed.push(admin.failed(status).to_string()),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(anyhow!("{}", failed.join("\n"))),
    }
}

/// One of a file; with a revision in it, only at that.
fn listed(resource: &pb::Resource) -> Option<(Reference, u64)> {
    let kind = yaml::kind_of(resource)?;
    let metadata = resource.metadata.as_ref()?;
    let name = match kind {
        // Known by the beginning of its hash.
        Kind::Token => TokenSecret::presented(&metadata.name)
            .public_name()
            .to_string(),
        _ => metadata.name.clone(),
    };
    Some((Reference { kind, name }, metadata.revision))
}
