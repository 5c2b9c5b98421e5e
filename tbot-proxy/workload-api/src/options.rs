//! What an operator may choose.

use std::time::Duration;

use crate::sds;

/// What a server offers, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The X.509 profile (WA-01).
    pub x509: bool,
    /// The JWT profile (WA-01).
    pub jwt: bool,
    /// The WIT profile: incubating at spiffe/spiffe 665a28f. Off: `UNIMPLEMENTED` (WA-28).
    pub wit: bool,
    /// Envoy's secret discovery service; `None`: not offered.
    pub sds: Option<sds::Options>,
    /// Connections at one time over all listeners; more are closed at once.
    pub max_connections: usize,
    /// Of these, those of processes of one user (over Unix sockets).
    pub max_connections_per_user: usize,
    /// Streams and calls at one time over all connections; more are refused with
    /// `RESOURCE_EXHAUSTED`.
    pub max_streams: usize,
    /// Of these, those of processes of one user (over Unix sockets).
    pub max_streams_per_user: usize,
    /// Streams and calls at one time on one connection; HTTP/2 makes more wait.
    pub max_streams_per_connection: u32,
    /// How long a connection may be silent before its first request.
    pub first_request: Duration,
    /// How long connections may take to close once the server stops.
    pub drain: Duration,
}

impl Default for Options {
    /// X.509, JWT and SDS; 16,384 connections, 12,288 of a user; 32,768 streams, 24,576 of
    /// a user, 100 of a connection; 10 s; 5 s.
    fn default() -> Self {
        Self {
            x509: true,
            jwt: true,
            wit: false,
            sds: Some(sds::Options::default()),
            max_connections: 16_384,
            max_connections_per_user: 12_288,
            max_streams: 32_768,
            max_streams_per_user: 24_576,
            max_streams_per_connection: 100,
            first_request: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}
