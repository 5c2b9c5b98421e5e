//! `spiffe-broker-api`: where trusted components get identities on behalf of workloads.

use std::collections::BTreeSet;

use config::Fields;
use identity::SpiffeId;
use proxy::Address;
use workload_api::broker::Options;

use super::{
    address::{SharedAddress, parse_listen},
    attestors::attestors,
    selector::{self, Selection},
    workload_api::{Limits, limits, parse_mode},
};

/// The state of the standard that is served.
const SPECIFICATION: &str = "spiffe/spiffe@665a28f";

/// Brokers run as whom the operator chose, and workloads do not (BE-01).
const SOCKET_MODE: u32 = 0o660;

/// A Broker API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerApi {
    /// A Unix socket, or an address of loopback.
    pub listen: Address,
    /// Of the socket's file.
    pub socket_mode: u32,
    /// What this server shows to brokers (BE-04).
    pub identity: Selection,
    /// What is found out about workloads.
    pub attestors: attest::Config,
    /// Who may ask, and what is offered.
    pub options: Options,
}

/// Reads what is particular to this type of service.
pub(super) fn broker_api(fields: &mut Fields<'_>) -> Option<BrokerApi> {
    let specification = fields.required("specification", |text| match text {
        SPECIFICATION => Ok(()),
        other => Err(format!(
            "`{other}`: the Broker API is served as it is at {SPECIFICATION}, and may change: write that"
        )),
    });
    let listen = fields.required("listen", |text| {
        parse_listen(text.strip_prefix("tcp://").unwrap_or(text))
    });
    if let Some(listen) = &listen
        && let Some(SharedAddress::Tcp(address)) = SharedAddress::of(listen)
        && !address.ip().is_loopback()
    {
        // BA-05.
        let message = format!(
            "`listen`: {address} is not loopback: brokers name processes and pods of this node, and are on it; use unix:///path"
        );
        fields.mistake("listen", message);
    }
    let socket_mode = fields.optional("socket_mode", parse_mode);
    let identity = selector::selection(fields, "identity");
    if let Some(Selection::Labels(_)) = identity {
        let message = "`identity`: a server shows one identity: select it by `name`";
        fields.mistake("identity", message);
    }
    let attestors = fields.mapping("attestors", attestors);
    let options = options(fields);
    specification?;
    Some(BrokerApi {
        listen: listen?,
        socket_mode: socket_mode.unwrap_or(SOCKET_MODE),
        identity: identity?,
        attestors: attestors.unwrap_or_default(),
        options: options?,
    })
}

fn options(fields: &mut Fields<'_>) -> Option<Options> {
    let allowed: BTreeSet<SpiffeId> = fields
        .scalars("brokers", |text| {
            SpiffeId::parse(text).map_err(|error| error.to_string())
        })
        .into_iter()
        .collect();
    if !fields.has("brokers") {
        let message = "missing key `brokers`: the SPIFFE IDs of who may ask, as [spiffe://…]; nobody is trusted by default";
        fields.mistake("", message);
    } else if fields.count("brokers") == 0 {
        fields.mistake("brokers", "`brokers`: it names nobody: who may ask?");
    }
    let mut options = Options {
        allowed,
        ..Options::default()
    };
    let profiles = fields.scalars("profiles", |profile| match profile {
        "x509" | "jwt" => Ok(profile.to_owned()),
        other => Err(format!("`{other}` is not known: x509, jwt")),
    });
    if fields.has("profiles") {
        let has = |profile: &str| profiles.iter().any(|other| other == profile);
        (options.x509, options.jwt) = (has("x509"), has("jwt"));
        if profiles.is_empty() {
            fields.mistake("profiles", "`profiles`: at least one of x509, jwt");
        }
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
