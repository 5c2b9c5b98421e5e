//! A connection after its handshake, and when it ends whatever its peer does.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_parser::{extensions::ParsedExtension, prelude::FromDer, prelude::X509Certificate};

use super::places::Place;
use crate::{access::Caller, authority::Keyring};

/// How long a peer may be silent after its handshake: a stranger until its first
/// request, a bot until its first byte.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a connection without a certificate may last: joining takes less.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(60);
/// How long a connection may outlast its certificate, to carry the refusals.
const EXPIRED_LIFE: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The bot, if it showed a certificate.
    pub caller: Option<Arc<Caller>>,
    spoken: Arc<AtomicBool>,
}

impl ConnectionInfo {
    pub(super) fn new(remote: SocketAddr, caller: Option<Arc<Caller>>) -> Self {
        Self {
            remote,
            caller,
            spoken: Arc::default(),
        }
    }

    /// The peer has sent a request.
    pub(crate) fn has_asked(&self) {
        self.spoken.store(true, Ordering::Relaxed);
    }
}

/// The CA of a bot's certificate, and the keys among which it must stay: a connection
/// lasts as long as the certificate says, which for one whose CA is known to others
/// can be any time.
pub(super) struct Trust {
    key_id: String,
    keyrings: watch::Receiver<Arc<Keyring>>,
}

impl Trust {
    /// By the bot's certificate.
    pub(super) fn new(leaf: &[u8], mut keyrings: watch::Receiver<Arc<Keyring>>) -> Self {
        let key_id = || {
            let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
            let id = leaf
                .iter_extensions()
                .find_map(|it| match it.parsed_extension() {
                    ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
                    _ => None,
                });
            id.map(|id| hex::encode(id.0))
        };
        // The handshake may have seen the keys of just before: those of now count.
        keyrings.mark_changed();
        Self {
            key_id: key_id().unwrap_or_default(),
            keyrings,
        }
    }

    /// Whether the CA has left the trust bundle.
    fn is_withdrawn(&mut self) -> bool {
        // An error: the issuer ends.
        if !self.keyrings.has_changed().unwrap_or(false) {
            return false;
        }
        let keyring = self.keyrings.borrow_and_update();
        !keyring.keys().iter().any(|key| key.key_id == self.key_id)
    }
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    info: ConnectionInfo,
    /// The end of silence at first, then of `life`.
    end: Pin<Box<Sleep>>,
    life: Instant,
    place: Place,
    /// Of a bot.
    trust: Option<Trust>,
}

impl Connection {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        info: ConnectionInfo,
        place: Place,
        trust: Option<Trust>,
    ) -> Self {
        metrics::gauge!("issuer_connections").increment(1.0);
        let life = match &info.caller {
            None => ANONYMOUS_LIFE,
            Some(caller) => {
                let left = caller.not_after.duration_since(SystemTime::now());
                left.unwrap_or_default() + EXPIRED_LIFE
            }
        };
        Self {
            stream,
            info,
            end: Box::pin(sleep(SILENCE_MAX.min(life))),
            life: Instant::now() + life,
            place,
            trust,
        }
    }

    /// Whether it is of a bot.
    pub(crate) fn is_of_bot(&self) -> bool {
        self.info.caller.is_some()
    }

    /// An error when the connection must end now.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.end.as_mut().poll(context).is_ready() {
            let silent = !self.info.spoken.load(Ordering::Relaxed);
            if silent || Instant::now() >= self.life {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.end.as_mut().reset(self.life);
        }
        if self.trust.as_mut().is_some_and(Trust::is_withdrawn) {
            let caller = self.info.caller.as_ref();
            let id = caller.map_or("", |caller| caller.id.as_str());
            tracing::warn!(
                id,
                "a connection was cut: the CA of its certificate was withdrawn"
            );
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match self.place.poll_cut(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
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
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.is_of_bot() {
            self.info.spoken.store(true, Ordering::Relaxed);
        }
        read
    }
}

// A peer that does not read is cut in time too: each way of waiting looks.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
