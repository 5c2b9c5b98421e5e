//! A service as its configuration says, resolved and checked.

use std::time::Duration;

use policy::PeerPolicy;

use crate::{Address, StartError, registry::Bytes};

/// Which way a service carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// SPIFFE mTLS in, plain out.
    Inbound,
    /// Plain in, SPIFFE mTLS out.
    Outbound,
}

impl Direction {
    /// `inbound` or `outbound`, as in log, metric and record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// Bytes client to server, and server to client.
    pub(crate) fn in_and_out(self, bytes: Bytes) -> (u64, u64) {
        match self {
            Self::Inbound => (bytes.to_plain, bytes.to_tls),
            Self::Outbound => (bytes.to_tls, bytes.to_plain),
        }
    }
}

/// One `proxy-inbound` or `proxy-outbound` service, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Name of the service, unique in the process.
    pub name: String,
    /// Which way.
    pub direction: Direction,
    /// Where to listen: an IP address or `localhost`, or a Unix socket (made with mode 0600).
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

impl ServiceConfig {
    /// What can be told without touching the system.
    ///
    /// # Errors
    ///
    /// Why [`ProxyService::start`](crate::ProxyService::start) would refuse it.
    pub fn check(&self) -> Result<(), StartError> {
        let service = || self.name.clone();
        if self.peers.allows_nobody() {
            return Err(StartError::AllowsNobody { service: service() });
        }
        if let Address::Tcp { host, .. } = &self.listen
            && self.listen.listen_addr().is_none()
        {
            return Err(StartError::ListenName {
                service: service(),
                host: host.clone(),
            });
        }
        if let Address::Tcp { port: 0, .. } = &self.connect {
            return Err(StartError::ConnectPort {
                service: service(),
                address: self.connect.clone(),
            });
        }
        let limits = [
            ("max_connections", self.limits.max_connections == 0),
            ("handshake", self.limits.handshake.is_zero()),
            ("dial", self.limits.dial.is_zero()),
            ("idle", self.limits.idle.is_some_and(|idle| idle.is_zero())),
            (
                "half_close",
                self.limits.half_close.is_some_and(|half| half.is_zero()),
            ),
        ];
        match limits.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((limit, _)) => Err(StartError::ZeroLimit {
                service: service(),
                limit,
            }),
            None => Ok(()),
        }
    }
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
