//! `issuer apply`.

use clap::Args;
use proto::admin::v1 as pb;
use similar::TextDiff;

use super::{Target, client::Admin, output, resource_files::Files};
use crate::resources::yaml;

/// Exit status of `--exit-code` when something would change.
const WOULD_CHANGE: i32 = 3;

/// `issuer apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    files: Files,
    /// Check everything and print what would change, as a difference; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: end with status 3 if something would change, 0 if nothing would.
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn apply(args: ApplyArgs) -> anyhow::Result<()> {
    if args.files.file.is_empty() {
        return Err(anyhow::anyhow!(
            "nothing is named: write -f FILE, -f DIR, or -f - for standard input"
        ));
    }
    let resources = args.files.resources()?;
    let mut admin = args.target.connect().await?;
    let results = send(&mut admin, resources, args.dry_run).await?;
    if !args.dry_run {
        return terminal::print(&told(&results));
    }
    terminal::print(&differences(&results))?;
    let changes = results.iter().any(|result| !is_unchanged(result));
    if args.exit_code && changes {
        std::process::exit(WOULD_CHANGE);
    }
    Ok(())
}

/// Sends resources; warnings go to standard error.
pub(super) async fn send(
    admin: &mut Admin,
    resources: Vec<pb::Resource>,
    dry_run: bool,
) -> anyhow::Result<Vec<pb::AppliedResource>> {
    let request = pb::ApplyResourcesRequest { resources, dry_run };
    let results = match admin.client().apply_resources(request).await {
        Ok(answer) => answer.into_inner().results,
        Err(status) => return Err(admin.failed(status)),
    };
    for warning in results.iter().flat_map(|result| &result.warnings) {
        eprintln!("issuer: warning: {warning}");
    }
    Ok(results)
}

/// A line for each.
pub(super) fn told(results: &[pb::AppliedResource]) -> String {
    use pb::applied_resource::Outcome;
    let lines = results.iter().map(|result| {
        let outcome = match result.outcome() {
            Outcome::Created => "created",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
            Outcome::Unspecified => "applied",
        };
        format!("{} {outcome}\n", reference(result))
    });
    lines.collect()
}

fn reference(result: &pb::AppliedResource) -> String {
    let reference = result.resource.as_ref().map(output::reference);
    reference.unwrap_or_default()
}

fn is_unchanged(result: &pb::AppliedResource) -> bool {
    result.outcome() == pb::applied_resource::Outcome::Unchanged
}

/// The unified difference of each that would change.
fn differences(results: &[pb::AppliedResource]) -> String {
    let mut text = String::new();
    for result in results.iter().filter(|result| !is_unchanged(result)) {
        let reference = reference(result);
        let old = result.previous.as_ref();
        let (before, after) = (written(old), written(result.resource.as_ref()));
        let from = match old.and_then(|old| old.metadata.as_ref()) {
            Some(metadata) => format!("{reference} (revision {})", metadata.revision),
            None => "/dev/null".to_owned(),
        };
        let difference = TextDiff::from_lines(&before, &after);
        let mut unified = difference.unified_diff();
        unified.context_radius(3).header(&from, &reference);
        text.push_str(&unified.to_string());
    }
    text
}

/// Without the revision, which is the issuer's.
fn written(resource: Option<&pb::Resource>) -> String {
    let Some(mut resource) = resource.cloned() else {
        return String::new();
    };
    if let Some(metadata) = &mut resource.metadata {
        metadata.revision = 0;
    }
    yaml::write(&[resource])
}
