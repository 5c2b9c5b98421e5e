//! `issuer attributes`: what rules and templates can ask of a caller.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::resources::yaml;

/// `issuer attributes`.
#[derive(Debug, Args)]
pub(super) struct AttributesArgs {
    /// Only those under this path, as join.github.
    #[arg(value_name = "PATH", default_value = "")]
    path: String,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: AttributesFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AttributesFormat {
    Table,
    Yaml,
    Json,
}

pub(super) fn attributes(args: &AttributesArgs) -> anyhow::Result<()> {
    let under = |path: &str| {
        let rest = path.strip_prefix(args.path.as_str());
        args.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let shown: Vec<_> = policy::attributes()
        .iter()
        .filter(|attribute| under(attribute.path))
        .collect();
    if shown.is_empty() {
        let meant = policy::schema::suggestion(&args.path);
        let meant = meant.map_or(String::new(), |path| format!(": did you mean {path}?"));
        return Err(anyhow::anyhow!(
            "there is no attribute {:?}{meant}",
            args.path
        ));
    }
    match args.output {
        AttributesFormat::Table => {
            let rows = shown.iter().map(|attribute| {
                vec![
                    attribute.path.to_owned(),
                    attribute.r#type.to_string(),
                    attribute.trust.to_string(),
                    attribute.presence.to_string(),
                    attribute.doc.to_owned(),
                ]
            });
            let header = ["ATTRIBUTE", "TYPE", "TRUST", "PRESENT", "WHAT IT SAYS"];
            terminal::print_table(&header, rows.collect())
        }
        AttributesFormat::Json => terminal::print_json(&serde_json::to_value(shown)?),
        AttributesFormat::Yaml => {
            let value: Value = serde_json::to_value(shown)?;
            terminal::print(&yaml::write_json(value))
        }
    }
}
