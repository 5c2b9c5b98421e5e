//! `issuer edit`: a resource in an editor, applied when the editor ends.
//!
//! What was typed is never lost: where it cannot be applied, its file stays and its
//! path is told.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, anyhow};
use clap::Args;
use proto::admin::v1 as pb;

use super::{
    Target, apply, output,
    resource::{Reference, read_one},
};
use crate::resources::{Kind, yaml};

/// `issuer edit`.
#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// KIND/NAME.
    #[arg(value_name = "KIND/NAME")]
    resource: String,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn edit(args: EditArgs) -> anyhow::Result<()> {
    let reference = Reference::parse(&args.resource)?;
    if reference.kind == Kind::Token {
        return Err(anyhow!(
            "a token cannot be edited, as its secret is not kept: delete it and make another"
        ));
    }
    let mut admin = args.target.connect().await?;
    let resource = read_one(&mut admin, &reference).await?;
    let text = yaml::write(std::slice::from_ref(&resource));
    let file = Draft::new(&reference, &text)?;
    run_editor(&file.path)?;
    let edited = file.read()?;
    if edited == text {
        file.remove();
        return terminal::print(&format!("{reference} not changed\n"));
    }
    let applied = async {
        let resource = parse(&file.path, &edited, &reference)?;
        apply::send(&mut admin, vec![resource], false).await
    };
    match applied.await {
        Ok(results) => {
            file.remove();
            terminal::print(&apply::told(&results))
        }
        Err(error) => Err(anyhow!(
            "{error}\nnothing was changed; what you wrote is in {path}: correct it and run `issuer apply -f {path}`",
            path = file.path.display()
        )),
    }
}

/// The one resource, still the same one.
fn parse(path: &Path, text: &str, reference: &Reference) -> anyhow::Result<pb::Resource> {
    let mut resources =
        yaml::read(&path.display().to_string(), text).map_err(|mistakes| anyhow!(mistakes))?;
    let (Some(resource), true) = (resources.pop(), resources.is_empty()) else {
        return Err(anyhow!("exactly one resource is expected"));
    };
    let edited = output::reference(&resource);
    if edited != reference.to_string() {
        return Err(anyhow!(
            "it is {edited} now, not {reference}: a new name makes a new resource, for which there is `issuer apply`"
        ));
    }
    Ok(resource)
}

/// A file for the editor, of this user only.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn new(reference: &Reference, text: &str) -> anyhow::Result<Self> {
        let mut file = tempfile::Builder::new()
            .prefix(&format!("{}-{}-", reference.kind, reference.name))
            .suffix(".yaml")
            .tempfile()
            .context("no file for the editor can be made")?;
        file.write_all(text.as_bytes())
            .context("the editor's file cannot be written")?;
        let (_, path) = file.keep().context("the editor's file cannot be kept")?;
        Ok(Self { path })
    }

    fn read(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(&self.path)
            .map_err(|error| anyhow!("{} cannot be read: {error}", self.path.display()))
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            eprintln!("issuer: warning: {} stays: {error}", self.path.display());
        }
    }
}

/// `$VISUAL`, else `$EDITOR`, else vi; either may have arguments.
fn run_editor(path: &Path) -> anyhow::Result<()> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|editor| !editor.trim().is_empty());
    let editor = named.unwrap_or_else(|| "vi".to_owned());
    let ended = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("editor")
        .arg(path)
        .status();
    let kept = path.display();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(anyhow!(
            "the editor {editor:?} ended with {status}; nothing was changed, its file is {kept}: name another in VISUAL or EDITOR"
        )),
        Err(error) => Err(anyhow!("the editor {editor:?} cannot be run: {error}")),
    }
}
