//! `workload-identity-api`: where local workloads get their identities.

use std::net::SocketAddr;

use config::Fields;
use proxy::Address;
use workload_api::{Options, sds};

use super::{
    address::{SharedAddress, parse_listen},
    attestors::attestors,
};

/// A Workload API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApi {
    /// A Unix socket, or an address of loopback.
    pub listen: Address,
    /// Of the socket's file.
    pub socket_mode: u32,
    /// What is found out about callers.
    pub attestors: attest::Config,
    /// What is offered.
    pub options: Options,
}

/// Everybody on this machine may ask: who gets what is a matter of attestation and policy.
const SOCKET_MODE: u32 = 0o666;

/// Reads what is particular to this type of service.
pub(super) fn workload_api(fields: &mut Fields<'_>) -> Option<WorkloadApi> {
    let listen = fields.required("listen", |text| {
        // As clients write it (WE-10).
        parse_listen(text.strip_prefix("tcp://").unwrap_or(text))
    });
    let unattested = fields.boolean("allow_unattested").unwrap_or(false);
    if let Some(listen) = &listen
        && let Some(SharedAddress::Tcp(address)) = SharedAddress::of(listen)
    {
        tcp(fields, address, unattested);
    }
    let socket_mode = fields.optional("socket_mode", parse_mode);
    let attestors = fields.mapping("attestors", attestors);
    let options = options(fields);
    Some(WorkloadApi {
        listen: listen?,
        socket_mode: socket_mode.unwrap_or(SOCKET_MODE),
        attestors: attestors.unwrap_or_default(),
        options: options?,
    })
}

/// WE-03: over TCP nobody can be told from anybody else.
fn tcp(fields: &mut Fields<'_>, address: SocketAddr, unattested: bool) {
    if !address.ip().is_loopback() {
        let message = format!(
            "`listen`: {address} is not loopback: whoever reaches it would get identities; use unix:///path"
        );
        fields.mistake("listen", message);
    } else if !unattested {
        let message = "`listen`: over TCP no caller can be attested, so every process of this machine gets the same; use unix:///path, or set `allow_unattested: true`";
        fields.mistake("listen", message);
    }
}

pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("`{text}` is no mode of a file: write \"0660\"")),
    }
}

/// Envoy's secret discovery, in SPIRE's words; `None` inside: it is switched off.
fn sds(fields: &mut Fields<'_>) -> Option<Option<sds::Options>> {
    let mut options = sds::Options::default();
    let name = |text: &str| match text {
        "" => Err("a name is not empty".to_owned()),
        name => Ok(name.to_owned()),
    };
    for (key, value) in [
        ("default_svid_name", &mut options.default_svid),
        ("default_bundle_name", &mut options.default_bundle),
        ("default_all_bundles_name", &mut options.all_bundles),
    ] {
        if let Some(name) = fields.optional(key, name) {
            *value = name;
        }
    }
    if let Some(disabled) = fields.boolean("disable_spiffe_cert_validation") {
        options.spiffe_validator = !disabled;
    }
    let names = [
        &options.default_svid,
        &options.default_bundle,
        &options.all_bundles,
    ];
    if (1..names.len()).any(|index| names[..index].contains(&names[index])) {
        let message = "`sds`: one name cannot be two secrets: give the three names apart";
        fields.mistake("default_svid_name", message);
    }
    let enabled = fields.boolean("enabled").unwrap_or(true);
    Some(enabled.then_some(options))
}

fn options(fields: &mut Fields<'_>) -> Option<Options> {
    let mut options = Options::default();
    let profiles = fields.scalars("profiles", |profile| match profile {
        "x509" | "jwt" | "wit" => Ok(profile.to_owned()),
        other => Err(format!("`{other}` is not known: x509, jwt, wit")),
    });
    if fields.has("profiles") {
        let has = |profile: &str| profiles.iter().any(|other| other == profile);
        options.x509 = has("x509");
        options.jwt = has("jwt");
        options.wit = has("wit");
        if profiles.is_empty() {
            fields.mistake("profiles", "`profiles`: at least one of x509, jwt, wit");
        }
    }
    if let Some(sds) = fields.mapping("sds", sds) {
        options.sds = sds;
    }
    let defaults = Limits {
        connections: options.max_connections,
        connections_per_user: options.max_connections_per_user,
        streams: options.max_streams,
        streams_per_user: options.max_streams_per_user,
        streams_per_connection: options.max_streams_per_connection,
    };
    let limits = limits(fields, defaults);
    options.max_connections = limits.connections;
    options.max_connections_per_user = limits.connections_per_user;
    options.max_streams = limits.streams;
    options.max_streams_per_user = limits.streams_per_user;
    options.max_streams_per_connection = limits.streams_per_connection;
    Some(options)
}

/// How much of a server there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) connections_per_user: usize,
    pub(super) streams: usize,
    pub(super) streams_per_user: usize,
    pub(super) streams_per_connection: u32,
}

/// Reads `limits`.
pub(super) fn limits(fields: &mut Fields<'_>, defaults: Limits) -> Limits {
    let limits = fields.mapping("limits", |fields| {
        let mut limits = defaults;
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        // One user leaves room for others.
        let most_of_one = |default: usize, of_all: usize| default.min(of_all - of_all / 4);
        if let Some(most) = fields.integer("max_connections", 1..=10_000_000) {
            limits.connections = whole(most);
            limits.connections_per_user =
                most_of_one(limits.connections_per_user, limits.connections);
        }
        if let Some(most) = fields.integer("max_connections_per_user", 1..=10_000_000) {
            limits.connections_per_user = whole(most);
        }
        if let Some(most) = fields.integer("max_streams_per_connection", 1..=1_000_000) {
            limits.streams_per_connection = u32::try_from(most).unwrap_or(u32::MAX);
        }
        // Who has made room for connections means them to be used.
        let of_connections = |connections: usize| connections.saturating_mul(2);
        limits.streams = limits.streams.max(of_connections(limits.connections));
        limits.streams_per_user = limits
            .streams_per_user
            .max(of_connections(limits.connections_per_user));
        if let Some(most) = fields.integer("max_streams", 1..=100_000_000) {
            limits.streams = whole(most);
            limits.streams_per_user = most_of_one(limits.streams_per_user, limits.streams);
        }
        if let Some(most) = fields.integer("max_streams_per_user", 1..=100_000_000) {
            limits.streams_per_user = whole(most);
        }
        Some(limits)
    });
    limits.unwrap_or(defaults)
}
