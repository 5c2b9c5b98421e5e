//! Services: what each type reads, and what no two may share.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use config::Fields;
use identity::{SpiffeId, TrustDomain};
use policy::{PathPrefix, PeerPolicy, PeerRule};
use proxy::{Address, Direction, Limits, OnExpiry, ServiceConfig};

use super::{
    address::{SharedAddress, parse_connect, parse_listen},
    broker::{self, BrokerApi},
    credential_ttl,
    output::{self, Output, OutputType},
    selector::{self, Selection, Selector},
    workload_api::{self, WorkloadApi},
};

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name: 1 to 64 letters, digits, `-`, `_`, `.`; unique.
    pub name: String,
    /// The identity that it uses. Services with an equal one share it.
    pub selector: Selector,
    /// What it does.
    pub kind: ServiceKind,
}

/// What a service does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// `workload-identity-x509` and the other outputs: write documents for others to read.
    Output(Box<Output>),
    /// `proxy-inbound`, `proxy-outbound`: carries traffic.
    Proxy(Box<ServiceConfig>),
    /// `workload-identity-api`: the SPIFFE Workload API and Envoy SDS.
    WorkloadApi(Box<WorkloadApi>),
    /// `spiffe-broker-api`: the SPIFFE Broker API.
    BrokerApi(Box<BrokerApi>),
}

/// As the file names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Output(OutputType),
    WorkloadApi,
    BrokerApi,
    Proxy(Direction),
}

/// Reads services; remembers what the ones before took.
#[derive(Debug)]
pub(super) struct ServiceReader {
    pub(super) default_ttl: Duration,
    /// Line by name.
    pub(super) names: HashMap<String, usize>,
    /// Listening address and who has it.
    pub(super) listeners: Vec<(SharedAddress, String)>,
    /// Written directory, or profile of a file in it, and who writes it.
    pub(super) directories: Vec<(PathBuf, String)>,
}

impl ServiceReader {
    pub(super) fn service(&mut self, fields: &mut Fields<'_>) -> Option<Service> {
        const TYPES: &str = "workload-identity-api, spiffe-broker-api, workload-identity-x509, workload-identity-jwt, workload-identity-aws-roles-anywhere, spiffe-bundle-map, proxy-inbound, proxy-outbound";
        let kind = fields.required("type", |kind| match kind {
            "workload-identity-api" => Ok(Type::WorkloadApi),
            "spiffe-broker-api" => Ok(Type::BrokerApi),
            "workload-identity-x509" => Ok(Type::Output(OutputType::X509)),
            "workload-identity-jwt" => Ok(Type::Output(OutputType::Jwt)),
            "workload-identity-aws-roles-anywhere" => Ok(Type::Output(OutputType::Aws)),
            "spiffe-bundle-map" => Ok(Type::Output(OutputType::BundleMap)),
            "proxy-inbound" => Ok(Type::Proxy(Direction::Inbound)),
            "proxy-outbound" => Ok(Type::Proxy(Direction::Outbound)),
            other => Err(format!("`{other}` is no type of service: {TYPES}")),
        });
        let name = self.name(fields);
        let Some(kind) = kind else {
            fields.ignore_rest();
            return None;
        };
        let selection = selector::selection(fields, "selector");
        if let (Type::Proxy(_), Some(Selection::Labels(_))) = (kind, &selection) {
            let message = "`selector`: a proxy shows one identity: select it by `name`";
            fields.mistake("selector", message);
        }
        let own_ttl = credential_ttl(fields);
        let ttl = own_ttl.unwrap_or(self.default_ttl);
        let label = name.clone().unwrap_or_default();
        let kind = match kind {
            Type::Output(kind) => {
                let output = output::output(fields, kind, own_ttl);
                output
                    .filter(|output| self.take_place(fields, output, &label))
                    .map(|output| ServiceKind::Output(Box::new(output)))
            }
            Type::WorkloadApi => {
                let api = workload_api::workload_api(fields);
                if let Some(api) = &api {
                    self.claim(fields, &api.listen, &label);
                }
                api.map(|api| ServiceKind::WorkloadApi(Box::new(api)))
            }
            Type::BrokerApi => {
                let api = broker::broker_api(fields);
                if let Some(api) = &api {
                    self.claim(fields, &api.listen, &label);
                }
                api.map(|api| ServiceKind::BrokerApi(Box::new(api)))
            }
            Type::Proxy(direction) => self
                .proxy(fields, direction, &label)
                .map(|proxy| ServiceKind::Proxy(Box::new(proxy))),
        };
        Some(Service {
            name: name?,
            selector: Selector {
                selection: selection?,
                ttl: Duration::from_secs(ttl.as_secs()),
            },
            kind: kind?,
        })
    }

    fn name(&mut self, fields: &mut Fields<'_>) -> Option<String> {
        let name = fields.required("name", parse_name)?;
        let (line, _) = fields.position("name")?;
        if let Some(first) = self.names.get(&name) {
            let message = format!("`name`: {name} is taken by the service on line {first}");
            fields.mistake("name", message);
            return None;
        }
        self.names.insert(name.clone(), line);
        Some(name)
    }

    /// Whether nobody else writes there.
    fn take_place(&mut self, fields: &mut Fields<'_>, output: &Output, name: &str) -> bool {
        let Some(place) = output.place() else {
            return true;
        };
        let taken = self
            .directories
            .iter()
            .find(|(path, _)| Output::clash(path, &place));
        if let Some((_, by)) = taken {
            let message = format!(
                "`destination`: {} is written by {by} already",
                place.display()
            );
            fields.mistake("destination", message);
            return false;
        }
        self.directories.push((place, format!("service {name}")));
        true
    }

    fn proxy(
        &mut self,
        fields: &mut Fields<'_>,
        direction: Direction,
        name: &str,
    ) -> Option<ServiceConfig> {
        let listen = fields.required("listen", parse_listen);
        let connect = fields.required("connect", parse_connect);
        let allow_non_loopback = fields.boolean("allow_non_loopback").unwrap_or(false);
        let (plain_key, plain) = match direction {
            Direction::Inbound => ("connect", &connect),
            Direction::Outbound => ("listen", &listen),
        };
        if let Some(plain) = plain
            && !allow_non_loopback
            && !plain.is_loopback()
        {
            let message = format!(
                "`{plain_key}`: {} is not loopback: plain traffic would leave this machine unprotected; use a loopback address or unix:///path, or set `allow_non_loopback: true`",
                plain
            );
            fields.mistake(plain_key, message);
        }
        if let Some(listen) = &listen {
            self.claim(fields, listen, name);
        }
        let peers = peers(fields, direction);
        let limits = limits(fields);
        let resumption = fields.boolean("resumption").unwrap_or(true);
        let tls12 = fields.boolean("tls12").unwrap_or(false);
        let on_expiry = fields.optional("on_expiry", |text| match text {
            "close" => Ok(OnExpiry::Close),
            "log" => Ok(OnExpiry::Log),
            other => Err(format!("`{other}` is not known: close or log")),
        });
        Some(ServiceConfig {
            name: name.to_owned(),
            direction,
            listen: listen?,
            connect: connect?,
            peers: peers?,
            limits: limits?,
            resumption,
            tls12,
            on_expiry: on_expiry.unwrap_or_default(),
        })
    }

    fn claim(&mut self, fields: &mut Fields<'_>, listen: &Address, name: &str) {
        let Some(address) = SharedAddress::of(listen) else {
            return;
        };
        let clash = self
            .listeners
            .iter()
            .find(|(taken, _)| taken.clashes(&address));
        if let Some((_, by)) = clash {
            let message = format!("`listen`: {} is taken by {by}", listen);
            fields.mistake("listen", message);
        }
        self.listeners.push((address, format!("service {name}")));
    }
}

/// `deny`, and `allow` (inbound) or `expect` (outbound). Nobody allowed is a
/// mistake: the proxy would refuse everybody (DESIGN D5).
fn peers(fields: &mut Fields<'_>, direction: Direction) -> Option<PeerPolicy> {
    let (key, who) = match direction {
        Direction::Inbound => ("allow", "who may connect"),
        Direction::Outbound => ("expect", "who the server must be"),
    };
    let deny = fields.mappings("deny", peer_rule);
    let allow = fields.mappings(key, peer_rule);
    if !fields.has(key) {
        let message = format!(
            "missing key `{key}`: {who}, as {key}: [{{id: spiffe://…}}]; nobody is trusted by default"
        );
        fields.mistake("", message);
        return None;
    }
    if fields.count(key) == 0 {
        fields.mistake(key, format!("`{key}`: it names nobody: {who}?"));
    }
    Some(PeerPolicy::new(deny, allow))
}

fn peer_rule(fields: &mut Fields<'_>) -> Option<PeerRule> {
    let id = fields.optional("id", |text| {
        SpiffeId::parse(text)
            .map(PeerRule::Id)
            .map_err(|error| error.to_string())
    });
    let trust_domain = fields.optional("trust_domain", |text| {
        TrustDomain::parse(text)
            .map(PeerRule::TrustDomain)
            .map_err(|error| error.to_string())
    });
    let path_prefix = fields.optional("path_prefix", |text| {
        PathPrefix::parse(text)
            .map(PeerRule::PathPrefix)
            .map_err(|error| error.to_string())
    });
    let keys = ["id", "trust_domain", "path_prefix"];
    if keys.iter().filter(|key| fields.has(key)).count() != 1 {
        fields.mistake(
            "",
            "a rule has exactly one of `id`, `trust_domain`, `path_prefix`",
        );
        return None;
    }
    id.or(trust_domain).or(path_prefix)
}

fn limits(fields: &mut Fields<'_>) -> Option<Limits> {
    const DAY: Duration = Duration::from_secs(86_400);
    let least = Duration::from_millis(1);
    let defaults = Limits::default();
    let limits = fields.mapping("limits", |fields| {
        let max_connections = fields.integer("max_connections", 1..=10_000_000);
        // 0s: no bound.
        let unbounded = |duration: Duration| (!duration.is_zero()).then_some(duration);
        Some(Limits {
            max_connections: max_connections
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(defaults.max_connections),
            handshake: fields
                .duration("handshake", least..=DAY)
                .unwrap_or(defaults.handshake),
            dial: fields
                .duration("dial", least..=DAY)
                .unwrap_or(defaults.dial),
            idle: fields
                .duration("idle", Duration::ZERO..=30 * DAY)
                .map_or(defaults.idle, unbounded),
            half_close: fields
                .duration("half_close", Duration::ZERO..=30 * DAY)
                .map_or(defaults.half_close, unbounded),
            lease_grace: fields
                .duration("lease_grace", Duration::ZERO..=DAY)
                .unwrap_or(defaults.lease_grace),
        })
    });
    limits.or((!fields.has("limits")).then_some(defaults))
}

/// A name of ours: 1 to 64 letters, digits, `-`, `_`, `.`.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a name: 1 to 64 letters, digits, `-`, `_`, `.`"
        ))
    }
}
