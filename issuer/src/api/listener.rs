//! The network listener: `accept → handshake → identify → serve`.
//!
//! TLS ends here and not in tonic, so that a connection carries who its peer is,
//! verified. A peer that stalls or floods costs a bounded number of connections,
//! each for a bounded time; what a failed accept needs (descriptors) is waited
//! for and not spun on.

mod connection;
mod places;

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{PeerIdentity, ServerTls};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub use self::{
    connection::{Connection, ConnectionInfo},
    places::{FILES_MIN, Limits},
};

use self::{
    connection::Trust,
    places::{Place, Places},
};
use super::drained;
use crate::{
    access::{Caller, Denial},
    audit::{Event, EventName},
    service::Issuer,
};

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an accept that failed for want of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Where connections go after their handshake.
pub struct Ready {
    /// Those of bots.
    pub bots: mpsc::Sender<io::Result<Connection>>,
    /// Those without a certificate.
    pub strangers: mpsc::Sender<io::Result<Connection>>,
}

/// Accepts until the issuer drains; connections after their handshake come out of
/// `ready`.
pub async fn accept(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    issuer: Arc<Issuer>,
    limits: Limits,
    ready: Ready,
    mut draining: watch::Receiver<bool>,
) {
    let ready = Arc::new(ready);
    let mut places = Places::new(limits);
    loop {
        let permit = tokio::select! {
            permit = places.room() => permit,
            () = drained(&mut draining) => return,
        };
        let Some(permit) = permit else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drained(&mut draining) => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = places.take(remote, permit) else {
                    continue;
                };
                let handshake = handshake(stream, remote, tls.clone(), issuer.clone(), place);
                let ready = ready.clone();
                tokio::spawn(async move {
                    if let Some(connection) = handshake.await {
                        let server = match connection.is_of_bot() {
                            true => &ready.bots,
                            false => &ready.strangers,
                        };
                        // An error: the server stopped meanwhile.
                        let _ = server.send(Ok(connection)).await;
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
    issuer: Arc<Issuer>,
    mut place: Place,
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
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, accept) => accepted,
        () = poll_fn(|context| place.poll_cut(context)) => {
            counted("crowded_out");
            return None;
        }
    };
    let stream = match accepted {
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
    let caller = match identify(&stream, &tls, &issuer, remote) {
        Ok(caller) => caller,
        Err(reason) => {
            counted("peer_refused");
            tracing::warn!(reason, %remote, "a peer's certificate was refused");
            return None;
        }
    };
    counted("ok");
    if caller.is_some() {
        place.proven();
    }
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let trust = leaf.map(|leaf| Trust::new(leaf, issuer.keyrings()));
    let info = ConnectionInfo::new(remote, caller);
    Some(Connection::new(stream, info, place, trust))
}

/// A peer without a certificate is nobody (it may join); one with a certificate
/// that is not a bot's is refused.
fn identify(
    stream: &TlsStream<TcpStream>,
    tls: &ServerTls,
    issuer: &Arc<Issuer>,
    remote: SocketAddr,
) -> Result<Option<Arc<Caller>>, String> {
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
    let caller = Caller::from_peer(&peer, &chain[0], Some(remote));
    if caller.is_err() {
        tokio::spawn(record_no_bot(issuer.clone(), peer, remote));
    }
    let caller = caller.map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(caller)))
}

/// Who proved an identity that is no bot's is known, and so recorded.
async fn record_no_bot(issuer: Arc<Issuer>, peer: PeerIdentity, remote: SocketAddr) {
    let event = Event::denial(EventName::Connect, Denial::NotABot.as_str())
        .with("spiffe_id", peer.id.as_str())
        .with("serial_number", peer.serial.to_string())
        .with_remote(Some(remote));
    let source = format!("connect {}", peer.id);
    if let Err(error) = issuer.record_refusal(&source, event).await {
        tracing::error!(%error, id = %peer.id, "a refused peer could not be recorded");
    }
}
