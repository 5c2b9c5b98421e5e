//! The data path: TLS by rustls' unbuffered API over TCP or Unix sockets, and a
//! bidirectional relay between a TLS side and a plain side that holds no buffer while idle.
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket, either kind.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix stream.
    Unix(UnixStream),
}

/// A TLS connection after its handshake.
pub struct TlsStream {
    _private: (),
}
impl TlsStream {
    /// The peer's chain, leaf first (on a resumed connection: that of the original handshake).
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        unimplemented!()
    }
    /// Whether the session was resumed.
    pub fn resumed(&self) -> bool {
        unimplemented!()
    }
    /// `TLSv1_3`, …
    pub fn protocol_version(&self) -> Option<rustls::ProtocolVersion> {
        unimplemented!()
    }
    /// Negotiated ALPN protocol.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        unimplemented!()
    }
    /// Sends close_notify as far as the socket takes it without waiting, and closes.
    pub fn close(self) {
        unimplemented!()
    }
    /// Sends a fatal `access_denied` alert as far as the socket takes it without waiting, and closes.
    pub fn refuse(self) {
        unimplemented!()
    }
}

/// TLS handshake as server. The caller bounds its time.
pub async fn accept(io: Socket, config: Arc<ServerConfig>) -> Result<TlsStream, HandshakeError> {
    let _ = (io, config);
    unimplemented!()
}
/// TLS handshake as client. The caller bounds its time.
pub async fn connect(
    io: Socket,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsStream, HandshakeError> {
    let _ = (io, config, name);
    unimplemented!()
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer closed before the handshake was complete.
    #[error("the peer closed the connection during the handshake")]
    Closed,
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[source] io::Error),
    /// TLS failed: what the peer sent, its certificate, or its alert.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
}

/// Bytes relayed; shared, so that the record of a connection has them however it ends.
#[derive(Debug, Default)]
pub struct Counters {
    /// Plaintext bytes from the TLS side to the plain side.
    pub tls_to_plain: AtomicU64,
    /// Plaintext bytes from the plain side to the TLS side.
    pub plain_to_tls: AtomicU64,
}

/// Deadlines of a relay. `None`: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadlines {
    /// Longest time without a byte in either direction.
    pub idle: Option<Duration>,
    /// Longest time from one direction's end to the other's, without a byte.
    pub half_close: Option<Duration>,
}

/// Carries bytes both ways until both directions have ended, a deadline passes, or a side fails.
/// Half-close is kept: close_notify becomes shutdown(Write) and the reverse. Dropping the future cuts both sides.
pub async fn relay(
    tls: TlsStream,
    plain: Socket,
    deadlines: Deadlines,
    counters: Arc<Counters>,
) -> End {
    let _ = (tls, plain, deadlines, counters);
    unimplemented!()
}

/// How a relay ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// Both directions ended cleanly.
    Complete,
    /// Nothing moved for `Deadlines::idle`.
    IdleTimeout,
    /// One direction had ended and nothing moved for `Deadlines::half_close`.
    HalfCloseTimeout,
    /// The TLS side's socket failed (reset).
    TlsSocket(io::Error),
    /// The TLS peer closed without close_notify (truncation).
    TlsTruncated,
    /// The TLS peer broke the protocol or sent a fatal alert.
    Tls(rustls::Error),
    /// The plain side's socket failed (reset).
    PlainSocket(io::Error),
}
