//! Resources out of files and directories, as `-f` names them.

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use proto::admin::v1 as pb;

use super::output;
use crate::resources::{Kind, yaml};

/// Which files.
#[derive(Debug, Args)]
pub(super) struct Files {
    /// YAML file of resources, `---` between them; a directory: every *.yaml and *.yml in
    /// it; `-`: standard input. Repeatable.
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    pub(super) file: Vec<PathBuf>,
    /// Go into the directories of directories, too.
    #[arg(short = 'R', long, requires = "file")]
    pub(super) recursive: bool,
}

impl Files {
    /// Every resource in order: as named, in a directory by name. The mistakes of all
    /// files are told at once.
    pub(super) fn resources(&self) -> anyhow::Result<Vec<pb::Resource>> {
        let mut files = Vec::new();
        for file in &self.file {
            self.collect(file, &mut files)?;
        }
        let mut resources = Vec::new();
        let mut mistakes = Vec::new();
        let mut names = HashMap::new();
        for file in files {
            let shown = file.display().to_string();
            match yaml::read(&shown, &text(&file)?) {
                Ok(read) => {
                    for resource in &read {
                        mistakes.extend(told_twice(resource, &shown, &mut names));
                    }
                    resources.extend(read);
                }
                Err(found) => mistakes.push(found.to_string()),
            }
        }
        if !mistakes.is_empty() {
            return Err(anyhow!("{}", mistakes.join("\n")));
        }
        if resources.is_empty() {
            let named: Vec<_> = self.file.iter().map(|file| file.display()).collect();
            return Err(anyhow!("{}: there is no resource in it", shown(&named)));
        }
        Ok(resources)
    }

    fn collect(&self, file: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        if file.as_os_str() == "-" || !file.is_dir() {
            files.push(file.to_owned());
            return Ok(());
        }
        let unreadable = |error| {
            anyhow!(
                "{:?} cannot be read ({error}): correct -f",
                file.display().to_string()
            )
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(file).map_err(unreadable)? {
            found.push(entry.map_err(unreadable)?.path());
        }
        found.sort();
        for path in found {
            let is_yaml = path
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml");
            match path.is_dir() {
                true if self.recursive => self.collect(&path, files)?,
                true => {}
                false if is_yaml => files.push(path),
                false => {}
            }
        }
        Ok(())
    }
}

fn shown(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// The text of a file; `-`: standard input.
pub(super) fn text(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| anyhow!("standard input cannot be read: {error}"))?;
        return Ok(text);
    }
    let shown = file.display().to_string();
    std::fs::read_to_string(file)
        .map_err(|error| anyhow!("{shown:?} cannot be read ({error}): correct -f"))
}

type Names = HashMap<(Kind, String), String>;

/// In one file the reader has told it already.
fn told_twice(resource: &pb::Resource, file: &str, names: &mut Names) -> Option<String> {
    let kind = yaml::kind_of(resource)?;
    let name = resource.metadata.as_ref()?.name.clone();
    let first = names.insert((kind, name), file.to_owned())?;
    let told = match kind {
        // Its name is its secret.
        Kind::Token => "a token".to_owned(),
        _ => output::reference(resource),
    };
    Some(format!("{file}: {told} stands in {first}, too: keep one"))
}
