//! `attest`: what the attestors see of a process.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use attest::{Attestors, Failure, Process};
use clap::Args;
use serde_json::{Value, json};
use terminal::Format;

use crate::configuration::{Configuration, Overrides, ServiceKind, Source};

/// Shows the attributes that rules and templates can ask of a process. Reads what the
/// agent reads, so it needs the agent's rights.
#[derive(Debug, Args)]
pub(super) struct AttestArgs {
    /// The process.
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// Configuration whose attestors are used [default: unix and systemd].
    #[arg(short, long, env = "TBOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The service of it whose attestors are meant, if several have any.
    #[arg(long, value_name = "NAME", requires = "config")]
    service: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl AttestArgs {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let attestors = Attestors::new(self.attestors()?);
        let process = Process::of_pid(self.pid)
            .with_context(|| format!("cannot attest process {}", self.pid))?;
        let attestation = attestors.attest(&process).await;
        if self.output == Format::Json {
            let told = |failures: &[Failure]| {
                failures
                    .iter()
                    .map(|failure| json!({"attestor": failure.attestor, "reason": failure.reason}))
                    .collect::<Value>()
            };
            return terminal::print_json(&json!({
                "workload": attestation.attributes,
                "failures": told(&attestation.failures),
                "not_applicable": told(&attestation.not_applicable),
                "seconds": attestation.took.as_secs_f64(),
            }));
        }
        let mut rows = Vec::new();
        flatten("workload", &attestation.attributes, &mut rows);
        terminal::print_table(&["ATTRIBUTE", "VALUE"], rows)?;
        for failure in attestation
            .failures
            .iter()
            .chain(&attestation.not_applicable)
        {
            terminal::print(&format!(
                "{}: {}\n",
                failure.attestor,
                terminal::plain(&failure.reason)
            ))?;
        }
        Ok(())
    }

    fn attestors(&self) -> anyhow::Result<attest::Config> {
        let Some(file) = &self.config else {
            let mut config = attest::Config::default();
            config.systemd = Some(attest::SystemdConfig::default());
            return Ok(config);
        };
        let configuration =
            Configuration::read(&Source::File(file.clone()), &Overrides::default())?;
        let mut apis = configuration
            .services
            .into_iter()
            .filter_map(|service| match service.kind {
                ServiceKind::WorkloadApi(api) => Some((service.name, api.attestors)),
                ServiceKind::BrokerApi(api) => Some((service.name, api.attestors)),
                ServiceKind::Output(_) | ServiceKind::Proxy(_) => None,
            })
            .filter(|(name, _)| self.service.as_ref().is_none_or(|wanted| wanted == name));
        let first = apis.next().ok_or_else(|| match &self.service {
            Some(name) => anyhow!("{}: no service {name} with attestors", file.display()),
            None => anyhow!("{}: no service with attestors in it", file.display()),
        })?;
        let others: Vec<_> = apis.map(|(name, _)| name).collect();
        if !others.is_empty() {
            bail!(
                "{} has several services with attestors ({}, {}): choose one with --service",
                file.display(),
                first.0,
                others.join(", ")
            );
        }
        Ok(first.1)
    }
}

/// Leaves of the tree with their full names, as rules write them.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                flatten(&format!("{path}.{name}"), value, rows);
            }
        }
        Value::String(text) => rows.push(vec![path.to_owned(), text.clone()]),
        value => rows.push(vec![path.to_owned(), value.to_string()]),
    }
}
