//! The SPIFFE Broker API (incubating, at spiffe/spiffe 665a28f): SVIDs of workloads for
//! components that act on their behalf, such as a node proxy.
//!
//! A broker connects over mutual TLS with its X509-SVID, and is on a list of SPIFFE IDs
//! (BE-04, BE-06); each request names one workload by a reference, which the
//! [`Broker`] resolves and verifies (BA-04). What a workload would get over the Workload
//! API is what its broker gets, in messages of the same fields and numbers, so the bytes
//! are made once for both.
//!
//! A broker that is not on the list is told so by each call, PERMISSION_DENIED; one
//! without a certificate gets through no handshake. A connection ends when the broker's
//! SVID expires, and when the CA behind it leaves the trust bundle.

mod reference;
mod service;

use std::{
    collections::BTreeSet,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{Identity, IdentitySource, PeerIdentity, ServerOptions, ServerTls, SpiffeId};
use tokio::{sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::reference::{KubernetesObject, Reference};

use self::service::{Service, Session};
use crate::{
    backend::Backend,
    connection::{self, Full, Limits, Peer, Places, drive},
    listener::{Listener, Stream},
    meters,
};

/// Metadata that every request carries (BE-03).
pub const HEADER: &str = "broker.spiffe.io";
/// Full name of the service.
pub const SERVICE: &str = "spiffe.broker.API";
/// How soon, and how late, the validity of a broker's SVID is looked at again.
const MOMENT: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A backend that can tell which workload a reference means.
pub trait Broker: Backend {
    /// The workload, as it is now, found and verified by us alone (BA-04, BA-05). It is
    /// called once a request; that the workload ends is told by
    /// [`Backend::ended`] (BA-12).
    fn resolve(
        &self,
        reference: &Reference,
    ) -> impl Future<Output = Result<Arc<Self::Caller>, Unresolved>> + Send;
}

/// Why a reference means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Not a reference of a kind that is resolved here, or at odds with itself.
    #[error("{0}")]
    Invalid(String),
    /// There is no such workload.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be told now.
    #[error("{0}")]
    Unavailable(String),
}

/// What an operator may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The brokers (BE-06). Nobody else is answered.
    pub allowed: BTreeSet<SpiffeId>,
    /// The X.509 profile (BA-01).
    pub x509: bool,
    /// The JWT profile (BA-01).
    pub jwt: bool,
    /// Connections at one time over all listeners; more are closed at once. As many more
    /// may be in their TLS handshake: who says nothing takes no place of a broker.
    pub max_connections: usize,
    /// Of these and of those, those of one user (over Unix sockets) or host (over TCP).
    pub max_connections_per_user: usize,
    /// Streams and calls at one time over all connections; more are refused with
    /// `RESOURCE_EXHAUSTED`.
    pub max_streams: usize,
    /// Of these, those of one user or host.
    pub max_streams_per_user: usize,
    /// Streams and calls at one time on one connection.
    pub max_streams_per_connection: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may be silent after it before its first request.
    pub first_request: Duration,
    /// How long connections may take to close once the server stops.
    pub drain: Duration,
}

impl Default for Options {
    /// Nobody is allowed. Both profiles; 256 connections, 192 of a user; 32,768 streams,
    /// 24,576 of a user, 1,000 of a connection; 3 s; 10 s; 5 s.
    fn default() -> Self {
        Self {
            allowed: BTreeSet::new(),
            x509: true,
            jwt: true,
            max_connections: 256,
            max_connections_per_user: 192,
            max_streams: 32_768,
            max_streams_per_user: 24_576,
            max_streams_per_connection: 1000,
            // Brokers are on this machine: it is a matter of milliseconds.
            handshake: Duration::from_secs(3),
            first_request: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves one backend to brokers.
pub struct BrokerServer<B> {
    service: Arc<Service<B>>,
    identity: Arc<IdentitySource>,
    tls: Arc<ServerTls>,
    options: Options,
    /// Before the TLS handshake is done.
    greeting: Arc<Places>,
    /// After it.
    places: Arc<Places>,
    streams: Arc<Places>,
}

impl<B: Broker> BrokerServer<B> {
    /// As the standard is at spiffe/spiffe 665a28f: it may change without notice.
    /// `identity` is the server's own, and the trust bundles by which brokers are known.
    pub fn at_665a28f(backend: Arc<B>, identity: Arc<IdentitySource>, options: Options) -> Self {
        let tls = ServerOptions {
            alpn: vec![b"h2".to_vec()],
            // BE-04.
            tls12: true,
            ..ServerOptions::default()
        };
        let places = || Places::new(options.max_connections, options.max_connections_per_user);
        Self {
            service: Arc::new(Service::new(backend, &options)),
            tls: ServerTls::new(identity.clone(), tls),
            identity,
            greeting: places(),
            places: places(),
            streams: Places::new(options.max_streams, options.max_streams_per_user),
            options,
        }
    }

    /// Accepts until `shutdown`; returns when the connections have closed, which takes
    /// [`Options::drain`] at most. Dropped before: connections end at once.
    pub async fn serve(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let connection = |stream, drain: &_| self.connection(stream, drain);
        connection::accept(listener, shutdown, self.options.drain, connection).await;
    }

    fn connection(
        &self,
        stream: Stream,
        drain: &CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<B>> {
        let peer = Peer::of(&stream, &*self.service.backend);
        let refused = |full: &Full| meters::refused(full.reason());
        let greeting = self.greeting.take(peer).inspect_err(refused).ok()?;
        let limits = Limits {
            max_streams: self.options.max_streams_per_connection,
            streams: self.streams.clone(),
            first_request: self.options.first_request,
        };
        let (service, tls) = (self.service.clone(), self.tls.clone());
        let (places, patience) = (self.places.clone(), self.options.handshake);
        let (source, drain) = (self.identity.clone(), drain.clone());
        Some(async move {
            // Before the handshake: what changes during it is seen after it.
            let trust = source.subscribe();
            let Some((stream, broker)) = handshake(stream, &tls, patience).await else {
                return;
            };
            let Ok(place) = places.take(peer).inspect_err(refused) else {
                return;
            };
            drop(greeting);
            let session = Arc::new(Session {
                service,
                broker: broker.id.clone(),
                drain,
            });
            let ended = Box::pin(no_longer_trusted(broker, tls, trust));
            drive(stream, session, ended, limits, place).await;
        })
    }
}

impl<B> std::fmt::Debug for BrokerServer<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerServer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

type TlsStream = tokio_rustls::server::TlsStream<Stream>;

/// Who has connected. It is asked of every handshake, resumed ones too.
async fn handshake(
    stream: Stream,
    tls: &ServerTls,
    patience: Duration,
) -> Option<(TlsStream, PeerIdentity)> {
    let config = match tls.config() {
        Ok(config) => config,
        Err(error) => {
            meters::refused("no_identity");
            tracing::warn!(%error, "a broker was turned away: there is no identity to show it");
            return None;
        }
    };
    let accepted = timeout(patience, TlsAcceptor::from(config).accept(stream)).await;
    let Ok(Ok(stream)) = accepted else {
        meters::refused("tls");
        tracing::debug!("a TLS handshake of a broker failed");
        return None;
    };
    let chain = stream.get_ref().1.peer_certificates();
    match tls.identify(chain, SystemTime::now()) {
        Ok(peer) => Some((stream, peer)),
        Err(error) => {
            meters::refused("tls");
            tracing::warn!(%error, "a broker's certificate was refused");
            None
        }
    }
}

/// Resolves when the broker's SVID has expired, or would not be accepted any more.
async fn no_longer_trusted(
    broker: PeerIdentity,
    tls: Arc<ServerTls>,
    mut trust: watch::Receiver<Arc<Identity>>,
) {
    loop {
        let now = SystemTime::now();
        if tls.identify(Some(&broker.chain), now).is_err() {
            tracing::info!(id = %broker.id, "the connection of a broker ends: its SVID is not valid any more");
            return;
        }
        let left = broker.not_after.duration_since(now).unwrap_or_default();
        tokio::select! {
            // A clock that was set back: looked at again.
            () = tokio::time::sleep(left.clamp(MOMENT, HOUR)) => {}
            Ok(()) = trust.changed() => {}
        }
    }
}
