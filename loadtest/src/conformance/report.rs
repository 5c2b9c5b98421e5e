//! The table.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

const CLIENT: &str = "a norm for clients";
const OPERATOR: &str = "only whoever runs the server can tell";

/// What every server shows, over any transport, to a process that has identities and waits
/// for an update.
pub const SHOWN_BY_A_HEALTHY_SERVER: [&str; 29] = [
    "AUTHORITY",
    "WE-02",
    "WE-05",
    "WE-06",
    "WE-11",
    "WE-15",
    "WE-16",
    "WE-17",
    "WE-18",
    "WA-01",
    "WA-02",
    "WA-04",
    "WA-05",
    "WA-08",
    "WA-11",
    "WA-12",
    "WA-13",
    "WA-14",
    "WA-15",
    "WA-17",
    "WA-19",
    "WA-20",
    "WA-21",
    "WA-22",
    "WA-23",
    "WA-24",
    "WA-25",
    "WA-26",
    "WA-31",
];

/// Id, what it says, and why it is not seen unless a check says otherwise.
pub(super) const NORMS: [(&str, &str, &str); 51] = [
    (
        "AUTHORITY",
        "clients that put a path into :authority are served (no norm)",
        "not tried",
    ),
    ("WE-01", "a local endpoint, one a host", OPERATOR),
    ("WE-02", "gRPC, service SpiffeWorkloadAPI", "not tried"),
    (
        "WE-03",
        "a Unix socket; TCP only where the network proves the caller",
        OPERATOR,
    ),
    (
        "WE-04",
        "every request carries workload.spiffe.io: true",
        CLIENT,
    ),
    (
        "WE-05",
        "a request without exactly that is an InvalidArgument, on every RPC",
        "not tried",
    ),
    ("WE-06", "TLS is not required", "not tried"),
    (
        "WE-07",
        "SPIFFE_ENDPOINT_SOCKET when not configured",
        CLIENT,
    ),
    (
        "WE-08",
        "the address is a URI of scheme unix or tcp",
        CLIENT,
    ),
    ("WE-09", "unix: an absolute path and nothing else", CLIENT),
    ("WE-10", "tcp: IP and port and nothing else", CLIENT),
    (
        "WE-11",
        "the client is not asked to authenticate",
        "not tried",
    ),
    ("WE-12", "no retry on InvalidArgument", CLIENT),
    (
        "WE-13",
        "starting or shedding load: Unavailable",
        "the server was ready",
    ),
    (
        "WE-14",
        "no identity: PermissionDenied",
        "this process has an identity",
    ),
    (
        "WE-15",
        "what is not implemented: Unimplemented",
        "not tried",
    ),
    (
        "WE-16",
        "services are not extended",
        "no reflection to tell it",
    ),
    ("WE-17", "the Workload API is exposed", "not tried"),
    ("WE-18", "gRPC server reflection", "not tried"),
    (
        "WA-01",
        "profiles X.509 and JWT",
        "neither is offered to this process",
    ),
    (
        "WA-02",
        "no further RPCs in the service",
        "no reflection to tell it",
    ),
    ("WA-03", "hold the connection; reconnect at once", CLIENT),
    (
        "WA-04",
        "each message of a stream is complete",
        "no update came",
    ),
    (
        "WA-05",
        "the first message comes at once",
        "this process has no identity",
    ),
    ("WA-06", "an empty field means exactly that", CLIENT),
    ("WA-07", "what is absent is withdrawn", CLIENT),
    (
        "WA-08",
        "an empty mandatory field is an InvalidArgument",
        "not tried",
    ),
    (
        "WA-09",
        "a response with an empty mandatory field is dropped",
        CLIENT,
    ),
    (
        "WA-10",
        "the bundle of the peer's trust domain is picked",
        CLIENT,
    ),
    (
        "WA-11",
        "FetchX509SVID: at least one SVID",
        "this process has no identity",
    ),
    (
        "WA-12",
        "id, chain, key and bundle are set",
        "this process has no identity",
    ),
    (
        "WA-13",
        "the chain is concatenated DER, leaf first",
        "this process has no identity",
    ),
    (
        "WA-14",
        "the key is PKCS#8 DER, unencrypted, of the leaf",
        "this process has no identity",
    ),
    (
        "WA-15",
        "bundles are concatenated DER, by SPIFFE ID of the trust domain",
        "this process has no identity",
    ),
    ("WA-16", "these bundles are for X509-SVIDs only", CLIENT),
    ("WA-17", "hints are unique", "this process has no identity"),
    (
        "WA-18",
        "no entitlement, or none any more: PermissionDenied",
        "nothing was taken away",
    ),
    (
        "WA-19",
        "FetchX509Bundles has the own trust domain",
        "this process has no identity",
    ),
    (
        "WA-20",
        "all audiences that are asked for are embedded",
        "no JWT-SVID",
    ),
    (
        "WA-21",
        "tokens of all identities, or of the one that is asked for",
        "no JWT-SVID",
    ),
    (
        "WA-22",
        "FetchJWTSVID: at least one; hints are unique",
        "no JWT-SVID",
    ),
    (
        "WA-23",
        "another's identity: PermissionDenied",
        "no JWT-SVID",
    ),
    (
        "WA-24",
        "FetchJWTBundles: JWK Sets of JWT keys only, with the own trust domain",
        "no JWT-SVID",
    ),
    ("WA-25", "ValidateJWTSVID validates", "no JWT-SVID"),
    (
        "WA-26",
        "claims are returned, with sub, aud and exp",
        "no JWT-SVID",
    ),
    ("WA-27", "clients use ValidateJWTSVID", CLIENT),
    (
        "WA-28",
        "no WIT profile: Unimplemented on both RPCs",
        "not tried",
    ),
    (
        "WA-29",
        "WIT-SVIDs with their private JWKs; bundles with unique kids",
        "the WIT profile is not offered",
    ),
    (
        "WA-30",
        "WIT: as X.509 where there is no entitlement",
        "the WIT profile is not offered",
    ),
    (
        "WA-31",
        "the first is the default; the order is stable",
        "this process has no identity",
    ),
    (
        "WA-32",
        "no hints over 1024 bytes",
        "this process has no identity",
    ),
];

/// What became of a norm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// As it says.
    Kept,
    /// Otherwise, and how.
    Broken(String),
    /// Nothing showed it, and why not.
    NotSeen(String),
}

/// A norm and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its id.
    pub norm: &'static str,
    /// What it says, in short.
    pub what: &'static str,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What the server does, norm by norm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whom it is about.
    pub endpoint: String,
    /// Every norm, in order.
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(endpoint: String, mut seen: BTreeMap<&'static str, Outcome>) -> Self {
        let row = |(norm, what, otherwise): &(&'static str, &'static str, &'static str)| Row {
            norm,
            what,
            outcome: seen
                .remove(norm)
                .unwrap_or_else(|| Outcome::NotSeen((*otherwise).to_owned())),
        };
        Self {
            endpoint,
            rows: NORMS.iter().map(row).collect(),
        }
    }

    /// Those that are broken.
    pub fn broken(&self) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .filter(|row| matches!(row.outcome, Outcome::Broken(_)))
    }

    /// What became of one.
    pub fn outcome(&self, norm: &str) -> Option<&Outcome> {
        let row = self.rows.iter().find(|row| row.norm == norm);
        row.map(|row| &row.outcome)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.endpoint)?;
        let mut counts = [0; 3];
        for row in &self.rows {
            let (word, why) = match &row.outcome {
                Outcome::Kept => ("pass", ""),
                Outcome::Broken(why) => ("FAIL", why.as_str()),
                Outcome::NotSeen(why) => ("not seen", why.as_str()),
            };
            counts[match row.outcome {
                Outcome::Kept => 0,
                Outcome::Broken(_) => 1,
                Outcome::NotSeen(_) => 2,
            }] += 1;
            write!(f, "{:<9} {word:<8} {}", row.norm, row.what)?;
            match why {
                "" => writeln!(f)?,
                why => writeln!(f, ": {why}")?,
            }
        }
        let [kept, broken, unseen] = counts;
        write!(f, "{kept} passed, {broken} failed, {unseen} not seen")
    }
}
