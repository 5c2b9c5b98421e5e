//! The mutual-TLS proxy: listeners, the connection path, leases and records.
use identity::{IdentitySource, SpiffeId};
use policy::PeerPolicy;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Where a listener listens, or where an application is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP; `host` may be a DNS name only where one connects.
    Tcp {
        /// Name or IP.
        host: String,
        /// Port.
        port: u16,
    },
    /// Unix stream socket.
    Unix(PathBuf),
}

/// Which way a service carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// SPIFFE mTLS in, plain out.
    Inbound,
    /// Plain in, SPIFFE mTLS out.
    Outbound,
}

/// One `proxy-inbound` or `proxy-outbound` service, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Name of the service, unique in the process.
    pub name: String,
    /// Which way.
    pub direction: Direction,
    /// Where to listen.
    pub listen: Address,
    /// Where to connect: the plain application (inbound), the peer proxy (outbound).
    pub connect: Address,
    /// Inbound: who may connect. Outbound: who the server must be. One that allows nobody is refused.
    pub peers: PeerPolicy,
    /// Limits and deadlines.
    pub limits: Limits,
    /// Whether TLS sessions may be resumed.
    pub resumption: bool,
    /// Whether TLS 1.2 is accepted.
    pub tls12: bool,
    /// What happens to a live connection whose peer's SVID expires.
    pub on_expiry: OnExpiry,
}

/// What happens to a live connection when the peer's identity expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExpiry {
    /// It is closed after `Limits::lease_grace`.
    #[default]
    Close,
    /// It is logged once (for migration).
    Log,
}

/// Limits and deadlines of a service, one for each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// TLS handshake.
    pub handshake: Duration,
    /// Connecting to the application or the peer.
    pub dial: Duration,
    /// No byte in either direction. `None`: no bound.
    pub idle: Option<Duration>,
    /// After one direction has ended.
    pub half_close: Option<Duration>,
    /// Time between a lease's end and the cut.
    pub lease_grace: Duration,
}
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(10),
            idle: None,
            half_close: Some(Duration::from_secs(60)),
            lease_grace: Duration::ZERO,
        }
    }
}

/// Why a connection ended. One closed list, spelled the same in log, metric and audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both sides finished.
    Complete,
}

/// The audit-ready record of one connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// UUIDv7.
    pub connection_id: String,
    /// Service name.
    pub service: String,
    /// Way.
    pub direction: Direction,
    /// Who connected.
    pub client_addr: Option<SocketAddr>,
    /// Our SPIFFE ID.
    pub local_id: Option<SpiffeId>,
    /// The peer's, once proven.
    pub peer_id: Option<SpiffeId>,
    /// Serial number of the peer's leaf, hex.
    pub peer_serial: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// When it was accepted.
    pub started: SystemTime,
    /// How long it lived.
    pub duration: Duration,
    /// Plaintext bytes client to server.
    pub bytes_in: u64,
    /// Plaintext bytes server to client.
    pub bytes_out: u64,
    /// Whether TLS was resumed.
    pub resumed: bool,
    /// Why it ended.
    pub reason: CloseReason,
    /// More on the reason, for people.
    pub detail: Option<String>,
}

/// Takes the records of ended connections. Must not block.
pub trait RecordSink: Send + Sync + 'static {
    /// One connection has ended.
    fn record(&self, record: &ConnectionRecord);
}

/// A running service.
pub struct ProxyService {
    _private: (),
}
impl ProxyService {
    /// Binds and starts to serve on `runtime` (the data runtime). Connections are refused until `identity` has an SVID.
    pub fn start(
        config: ServiceConfig,
        identity: Arc<IdentitySource>,
        sink: Arc<dyn RecordSink>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, StartError> {
        let _ = (config, identity, sink, runtime);
        unimplemented!()
    }
    /// The configuration in force.
    pub fn config(&self) -> Arc<ServiceConfig> {
        unimplemented!()
    }
    /// Puts a changed configuration in force without touching the listener: live connections that the new policy refuses are cut.
    /// Fails (and changes nothing) if `listen`, `direction` or `name` differ: then drain this one and start another.
    pub fn update(&self, config: ServiceConfig) -> Result<(), StartError> {
        let _ = config;
        unimplemented!()
    }
    /// Address listened on (with the real port for port 0).
    pub fn local_addr(&self) -> Address {
        unimplemented!()
    }
    /// Live connections.
    pub fn connections(&self) -> usize {
        unimplemented!()
    }
    /// Stops accepting, waits for live connections up to `deadline`, then cuts the rest. Returns how many were cut.
    pub async fn drain(self, deadline: Duration) -> usize {
        let _ = deadline;
        unimplemented!()
    }
}

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// stub
    #[error("stub")]
    Stub,
}
