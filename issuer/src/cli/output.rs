//! How answers are shown: tables for people, JSON for scripts, YAML to apply again.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use proto::admin::v1 as pb;
use serde_json::Value;

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
