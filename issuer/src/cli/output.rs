//! How answers are shown: tables for people, JSON for scripts, YAML to apply again.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use proto::admin::v1 as pb;
use serde_json::{Map, Value, json};

use crate::{authority::rfc3339, resources::yaml};

/// Tables or JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// Prints text. A reader that has gone away ends the program quietly, as it ends
/// any filter.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints JSON, indented.
pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    print(&format!("{value:#}\n"))
}

/// Text as it can be shown on a terminal: what is not printable (control and
/// format characters) stands escaped.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

/// Prints a table.
pub(super) fn print_table(header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    let lines: Vec<_> = table
        .to_string()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    print(&format!("{}\n", lines.join("\n")))
}

/// `2026-11-21T20:53:01Z`; empty if there is none.
pub(super) fn time(timestamp: Option<prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|timestamp| SystemTime::try_from(timestamp).ok())
        .map(rfc3339)
        .unwrap_or_default()
}

/// The kind's name.
pub(super) fn kind(resource: &pb::Resource) -> &'static str {
    yaml::kind_of(resource).map_or("", |kind| kind.as_str())
}

/// `kind/name`.
pub(super) fn reference(resource: &pb::Resource) -> String {
    let name = resource
        .metadata
        .as_ref()
        .map_or("", |metadata| &metadata.name);
    format!("{}/{name}", kind(resource))
}

/// The same shape as YAML has.
pub(super) fn resource_json(resource: &pb::Resource) -> Value {
    let metadata = resource.metadata.clone().unwrap_or_default();
    let mut shown = Map::new();
    shown.insert("name".to_owned(), json!(metadata.name));
    if !metadata.labels.is_empty() {
        shown.insert("labels".to_owned(), json!(metadata.labels));
    }
    shown.insert("revision".to_owned(), json!(metadata.revision));
    if metadata.expires.is_some() {
        shown.insert("expires".to_owned(), json!(time(metadata.expires)));
    }
    let spec = resource.spec.as_ref().map_or(Value::Null, spec_json);
    json!({ "kind": kind(resource), "version": "v1", "metadata": shown, "spec": spec })
}

fn spec_json(spec: &pb::resource::Spec) -> Value {
    match spec {
        pb::resource::Spec::Bot(bot) => json!({ "roles": bot.roles }),
        pb::resource::Spec::Role(role) => {
            let labels: Map<_, _> = role
                .workload_identity_labels
                .iter()
                .map(|selector| (selector.key.clone(), json!(selector.values)))
                .collect();
            json!({ "allow": { "workload_identity_labels": labels } })
        }
        pb::resource::Spec::Lock(_) | pb::resource::Spec::SpiffeFederation(_) => Value::Null,
        pb::resource::Spec::Token(token) => json!({
            "roles": ["Bot"],
            "join_method": token.join_method,
            "bot_name": token.bot_name,
        }),
        pb::resource::Spec::WorkloadIdentity(spec) => {
            let mut x509 = Map::new();
            if let Some(ttl) = &spec.x509_maximum_ttl {
                let ttl = Duration::from_secs(u64::try_from(ttl.seconds).unwrap_or(0));
                x509.insert(
                    "maximum_ttl".to_owned(),
                    json!(::config::format_duration(ttl)),
                );
            }
            if !spec.dns_sans.is_empty() {
                x509.insert("dns_sans".to_owned(), json!(spec.dns_sans));
            }
            let mut spiffe = Map::new();
            spiffe.insert("id".to_owned(), json!(spec.spiffe_path));
            if !spec.hint.is_empty() {
                spiffe.insert("hint".to_owned(), json!(spec.hint));
            }
            if !x509.is_empty() {
                spiffe.insert("x509".to_owned(), Value::Object(x509));
            }
            json!({ "spiffe": spiffe })
        }
    }
}
