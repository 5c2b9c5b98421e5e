//! Outputs of the agent: each type, what is done after a change, what is left at the end;
//! once and for ever; and what waits for them.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use e2e::Agent;

mod aws;
mod ends;
mod once;
mod written;

fn output(kind: &str, name: &str, directory: &Path, more: &str) -> String {
    format!(
        "type: {kind}, name: {name}, selector: {{ name: app }}, \
         destination: {{ type: directory, path: {} }}, {more}",
        directory.display()
    )
}

fn ready(agent: &Agent, service: &str) -> Option<String> {
    let (status, body) = agent.get(&format!("/readyz/{service}"))?;
    (status == 200).then_some(body)
}
