//! The network listener: `accept → handshake → identify → serve`.
//!
//! TLS ends here and not in tonic, so that a connection carries who its peer is,
//! verified. A peer that stalls or floods costs a bounded number of connections,
//! each for a bounded time; what a failed accept needs (descriptors) is waited
//! for and not spun on.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use identity::ServerTls;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::drained;
use crate::{access::Caller, join::limit::network_of};

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections at most.
pub const CONNECTIONS_MAX: usize = 4096;
/// Open connections at most from one source (an IPv4 address, or an IPv6 /64), so
/// that one that floods leaves room for the others.
pub const CONNECTIONS_PER_SOURCE: usize = 512;
/// How long a connection without a certificate may last: joining takes less.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(60);
/// How long a connection may outlast its certificate, to carry the refusals.
const EXPIRED_LIFE: Duration = Duration::from_secs(10);
/// How long to wait after an accept that failed for want of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The bot, if it showed a certificate.
    pub caller: Option<Caller>,
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    info: ConnectionInfo,
    /// When it is cut, whatever it does.
    end: Pin<Box<Sleep>>,
    _place: Place,
}

/// A place among the open connections, of all and of one source.
struct Place {
    source: IpAddr,
    sources: Arc<Sources>,
    _permit: OwnedSemaphorePermit,
}

type Sources = Mutex<HashMap<IpAddr, usize>>;

impl Place {
    fn take(
        sources: &Arc<Sources>,
        remote: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let source = network_of(remote.ip());
        let mut open = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_insert(0);
        if *count >= CONNECTIONS_PER_SOURCE {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Self {
            source,
            sources: sources.clone(),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::gauge!("issuer_connections").decrement(1.0);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts until the issuer drains; finished connections come out of `ready`.
pub async fn accept(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    ready: mpsc::Sender<io::Result<Connection>>,
    mut draining: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sources = Arc::new(Sources::default());
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drained(&mut draining) => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = Place::take(&sources, remote, permit) else {
                    metrics::counter!("issuer_handshakes_total", "result" => "source_full")
                        .increment(1);
                    continue;
                };
                let handshake = handshake(stream, remote, tls.clone(), place);
                let ready = ready.clone();
                tokio::spawn(async move {
                    if let Some(connection) = handshake.await {
                        // The server stopped meanwhile.
                        let _ = ready.send(Ok(connection)).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn handshake(
    stream: TcpStream,
    remote: SocketAddr,
    tls: Arc<ServerTls>,
    place: Place,
) -> Option<Connection> {
    let counted = |reason: &'static str| {
        metrics::counter!("issuer_handshakes_total", "result" => reason).increment(1);
    };
    // Requests and answers are small: each is to leave at once.
    let _ = stream.set_nodelay(true);
    let config = match tls.config() {
        Ok(config) => config,
        Err(error) => {
            counted("no_identity");
            tracing::error!(%error, "the issuer has no valid identity of its own");
            return None;
        }
    };
    let accept = TlsAcceptor::from(config).accept(stream);
    let stream = match timeout(HANDSHAKE_TIMEOUT, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            counted("tls_error");
            tracing::debug!(%error, %remote, "a TLS handshake failed");
            return None;
        }
        Err(_) => {
            counted("timeout");
            tracing::debug!(%remote, "a TLS handshake took too long");
            return None;
        }
    };
    let caller = match identify(&stream, &tls, remote) {
        Ok(caller) => caller,
        Err(reason) => {
            counted("peer_refused");
            tracing::warn!(reason, %remote, "a peer's certificate was refused");
            return None;
        }
    };
    counted("ok");
    metrics::gauge!("issuer_connections").increment(1.0);
    let life = match &caller {
        None => ANONYMOUS_LIFE,
        Some(caller) => {
            let left = caller.not_after.duration_since(SystemTime::now());
            left.unwrap_or_default() + EXPIRED_LIFE
        }
    };
    Some(Connection {
        stream,
        info: ConnectionInfo { remote, caller },
        end: Box::pin(sleep(life)),
        _place: place,
    })
}

/// A peer without a certificate is nobody (it may join); one with a certificate
/// that is not a bot's is refused.
fn identify(
    stream: &TlsStream<TcpStream>,
    tls: &ServerTls,
    remote: SocketAddr,
) -> Result<Option<Caller>, String> {
    let (_, session) = stream.get_ref();
    let Some(chain) = session
        .peer_certificates()
        .filter(|chain| !chain.is_empty())
    else {
        return Ok(None);
    };
    let peer = tls
        .identify(Some(chain), SystemTime::now())
        .map_err(|error| error.to_string())?;
    Caller::from_peer(&peer, &chain[0], Some(remote))
        .map(Some)
        .map_err(|error| error.to_string())
}
