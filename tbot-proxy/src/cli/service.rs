//! `start SERVICE` and `configure SERVICE`: one service by flags alone.
//!
//! The flags become the text of a configuration file, which is read like any other: what
//! `configure` prints is what `start` runs.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use config::Free;

use super::output;

/// A service by flags.
#[derive(Debug, Subcommand)]
pub(super) enum Service {
    /// The SPIFFE Workload API and Envoy SDS for local workloads.
    WorkloadIdentityApi(Api),
    /// The SPIFFE Broker API (incubating): identities of workloads for trusted components.
    SpiffeBrokerApi(Broker),
    /// X509-SVID, key and trust bundles as files.
    WorkloadIdentityX509(output::X509),
    /// A JWT-SVID as a file.
    WorkloadIdentityJwt(output::Jwt),
    /// Credentials of AWS for an X509-SVID, by IAM Roles Anywhere.
    WorkloadIdentityAwsRolesAnywhere(Box<output::Aws>),
    /// Trust bundles by trust domain as a file.
    SpiffeBundleMap(output::BundleMap),
    /// Takes SPIFFE mutual TLS from the network to a plain local application.
    ProxyInbound(Inbound),
    /// Takes plain local traffic to a server over SPIFFE mutual TLS.
    ProxyOutbound(Outbound),
}

/// What every service has.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Name of the service, in logs, metrics and /readyz [default: its type].
    #[arg(long = "name", value_name = "NAME")]
    service_name: Option<String>,
    /// The workload identity of this name.
    #[arg(long, value_name = "NAME", required_unless_present = "label_selector")]
    name_selector: Option<String>,
    /// Workload identities with this label; `*` is any value. Repeatable.
    #[arg(
        long,
        value_name = "KEY=VALUE[,VALUE]",
        value_parser = label,
        conflicts_with = "name_selector"
    )]
    label_selector: Vec<(String, Vec<String>)>,
    /// Wanted life of SVIDs.
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    credential_ttl: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Api {
    #[command(flatten)]
    common: Common,
    /// Where workloads connect: unix:///path, or tcp://127.0.0.1:port.
    #[arg(
        long,
        value_name = "URI",
        default_value = "unix:///run/tbot-proxy/workload.sock"
    )]
    listen: String,
    /// Everybody who reaches a TCP address gets the same identities.
    #[arg(long)]
    allow_unattested: bool,
}

#[derive(Debug, Args)]
pub(super) struct Broker {
    #[command(flatten)]
    common: Common,
    /// State of the standard that is served: it may change.
    #[arg(long, value_name = "COMMIT", default_value = "spiffe/spiffe@665a28f")]
    specification: String,
    /// Where brokers connect: unix:///path, or tcp://127.0.0.1:port.
    #[arg(
        long,
        value_name = "URI",
        default_value = "unix:///run/tbot-proxy/broker.sock"
    )]
    listen: String,
    /// The workload identity, by name, that the agent shows to brokers.
    #[arg(long, value_name = "NAME")]
    identity: String,
    /// SPIFFE ID of a broker. Repeatable.
    #[arg(long, value_name = "SPIFFE ID", required = true)]
    broker: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Inbound {
    #[command(flatten)]
    common: Common,
    /// Where the network connects: IP:port.
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// The local application: IP:port, or unix:///path.
    #[arg(long, value_name = "ADDRESS")]
    connect: String,
    /// SPIFFE ID of who may connect. Repeatable.
    #[arg(long, value_name = "SPIFFE ID", required = true)]
    allow: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Outbound {
    #[command(flatten)]
    common: Common,
    /// Where the local application connects: IP:port, or unix:///path.
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// The server: host:port.
    #[arg(long, value_name = "ADDRESS")]
    connect: String,
    /// SPIFFE ID that the server must have. Repeatable: any of them.
    #[arg(long, value_name = "SPIFFE ID", required = true)]
    expect: Vec<String>,
}

/// What of the agent is in the text of a configuration.
pub(super) struct Head {
    pub(super) issuer: Vec<String>,
    pub(super) ca_pins: Vec<String>,
    /// Path of the token's file. A token itself stands in no file of ours.
    pub(super) token_file: Option<String>,
    pub(super) storage: Option<String>,
    pub(super) diagnostics: Option<String>,
}

impl Service {
    /// The text of a configuration with this service.
    pub(super) fn configuration(&self, head: &Head) -> anyhow::Result<String> {
        let fields = vec![
            ("version", text("v1")),
            ("issuer", head.issuer()?),
            ("onboarding", head.onboarding()),
            ("storage", head.storage()),
            ("diagnostics", head.diagnostics()),
            ("services", Free::List(vec![self.fields()])),
        ];
        Ok(config::write(&map(fields)))
    }

    fn fields(&self) -> Free {
        let (kind, common, own) = match self {
            Self::WorkloadIdentityApi(api) => {
                let mut own = vec![("listen", text(&api.listen))];
                if api.allow_unattested {
                    own.push(("allow_unattested", Free::Boolean(true)));
                }
                ("workload-identity-api", &api.common, own)
            }
            Self::SpiffeBrokerApi(api) => {
                let own = vec![
                    ("specification", text(&api.specification)),
                    ("listen", text(&api.listen)),
                    ("identity", map(vec![("name", text(&api.identity))])),
                    ("brokers", texts(&api.broker)),
                ];
                ("spiffe-broker-api", &api.common, own)
            }
            Self::WorkloadIdentityX509(output) => {
                ("workload-identity-x509", &output.common, output.fields())
            }
            Self::WorkloadIdentityJwt(output) => {
                ("workload-identity-jwt", &output.common, output.fields())
            }
            Self::WorkloadIdentityAwsRolesAnywhere(output) => (
                "workload-identity-aws-roles-anywhere",
                &output.common,
                output.fields(),
            ),
            Self::SpiffeBundleMap(output) => ("spiffe-bundle-map", &output.common, output.fields()),
            Self::ProxyInbound(proxy) => {
                let own = vec![
                    ("listen", text(&proxy.listen)),
                    ("connect", text(&proxy.connect)),
                    ("allow", ids(&proxy.allow)),
                ];
                ("proxy-inbound", &proxy.common, own)
            }
            Self::ProxyOutbound(proxy) => {
                let own = vec![
                    ("listen", text(&proxy.listen)),
                    ("connect", text(&proxy.connect)),
                    ("expect", ids(&proxy.expect)),
                ];
                ("proxy-outbound", &proxy.common, own)
            }
        };
        let mut fields = vec![
            ("type", text(kind)),
            ("name", text(common.service_name.as_deref().unwrap_or(kind))),
            ("selector", common.selector()),
        ];
        if let Some(ttl) = common.credential_ttl {
            fields.push(("credential_ttl", text(&format!("{}s", ttl.as_secs()))));
        }
        fields.extend(own);
        map(fields)
    }
}

impl Common {
    fn selector(&self) -> Free {
        match &self.name_selector {
            Some(name) => map(vec![("name", text(name))]),
            None => {
                let labels = self.label_selector.iter().map(|(key, values)| {
                    let values = values.iter().map(|value| text(value)).collect();
                    (key.clone(), Free::List(values))
                });
                map(vec![("labels", Free::Map(labels.collect()))])
            }
        }
    }
}

impl Head {
    fn issuer(&self) -> anyhow::Result<Free> {
        if self.issuer.is_empty() {
            bail!("--issuer (TBOT_ISSUER) is missing: host:port of the issuer");
        }
        if self.ca_pins.is_empty() {
            bail!("--ca-pin (TBOT_CA_PIN) is missing: `issuer status` prints it");
        }
        Ok(map(vec![
            ("addresses", texts(&self.issuer)),
            ("ca_pins", texts(&self.ca_pins)),
        ]))
    }

    fn onboarding(&self) -> Free {
        let mut fields = vec![("join_method", text("token"))];
        if let Some(file) = &self.token_file {
            fields.push(("token", text(file)));
        }
        map(fields)
    }

    fn storage(&self) -> Free {
        match self.storage.as_deref() {
            Some("memory") => map(vec![("type", text("memory"))]),
            path => map(vec![
                ("type", text("directory")),
                ("path", text(path.unwrap_or("/var/lib/tbot-proxy"))),
            ]),
        }
    }

    fn diagnostics(&self) -> Free {
        let address = self.diagnostics.as_deref().unwrap_or("127.0.0.1:3082");
        map(vec![("listen", text(address))])
    }
}

fn label(text: &str) -> Result<(String, Vec<String>), String> {
    match text.split_once('=') {
        Some((key, values)) if !key.is_empty() && !values.is_empty() => {
            let values = values.split(',').map(str::to_owned).collect();
            Ok((key.to_owned(), values))
        }
        _ => Err(format!("`{text}` is no label: write key=value")),
    }
}

fn ids(ids: &[String]) -> Free {
    Free::List(ids.iter().map(|id| map(vec![("id", text(id))])).collect())
}

pub(super) fn texts(all: &[String]) -> Free {
    Free::List(all.iter().map(|one| text(one)).collect())
}

pub(super) fn text(text: &str) -> Free {
    Free::Text(text.to_owned())
}

pub(super) fn map(fields: Vec<(&str, Free)>) -> Free {
    let owned = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    Free::Map(owned.collect())
}
