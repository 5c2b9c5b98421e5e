//! A TLS connection after its handshake.
use std::fmt;

use rustls::{Error, HandshakeKind, ProtocolVersion, pki_types::CertificateDer};

use crate::{Socket, buffers::Leftover, engine::Engine, refusal};

/// A TLS connection after its handshake. Dropping it closes the socket without close_notify.
pub struct TlsStream {
    pub(crate) socket: Socket,
    pub(crate) engine: Box<Engine>,
    /// Ciphertext that is not a whole record (or handshake message) yet.
    pub(crate) incoming: Leftover,
    /// Plaintext received and not passed on.
    pub(crate) received: Leftover,
    /// Ciphertext that the socket has not taken.
    pub(crate) outgoing: Leftover,
}

impl TlsStream {
    pub(crate) fn new(socket: Socket, engine: Box<Engine>) -> Self {
        Self {
            socket,
            engine,
            incoming: Leftover::default(),
            received: Leftover::default(),
            outgoing: Leftover::default(),
        }
    }

    /// The peer's chain, leaf first (on a resumed connection: that of the original handshake).
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.engine.facts().peer_certificates()
    }

    /// Whether the session was resumed.
    pub fn resumed(&self) -> bool {
        self.engine.facts().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// `TLSv1_3`, …
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.engine.facts().protocol_version()
    }

    /// Negotiated ALPN protocol.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.engine.facts().alpn_protocol()
    }

    /// Sends close_notify as far as the socket takes it without waiting, and closes.
    pub fn close(mut self) {
        let mut out = Vec::new();
        if let Ok(count) = self
            .engine
            .close_notify(self.incoming.as_mut_slice(), &mut out)
        {
            self.outgoing.append(&out[..count]);
        }
        self.send_and_end();
    }

    /// Sends a fatal `access_denied` alert as far as the socket takes it without waiting, and closes.
    ///
    /// rustls has no call for that alert. It can be sent when the configuration sets `enable_secret_extraction`;
    /// otherwise the connection ends without close_notify, which a peer takes for a failure as well.
    pub fn refuse(self) {
        let Self {
            socket,
            engine,
            mut outgoing,
            ..
        } = self;
        if !engine.closed() {
            outgoing.append(&refusal::access_denied(*engine).unwrap_or_default());
        }
        if socket.try_write(outgoing.as_slice()).is_ok() {
            let _ = socket.shutdown_write();
        }
    }

    fn send_and_end(self) {
        if self.socket.try_write(self.outgoing.as_slice()).is_ok() {
            let _ = self.socket.shutdown_write();
        }
    }

    /// Feeds `input` to the engine; queues what TLS itself sends. Returns the bytes consumed.
    pub(crate) fn process(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let mut out = Vec::new();
        let received = self.engine.receive(input, plain, &mut out);
        self.outgoing.append(&out);
        received.result.map(|()| received.consumed)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .field("version", &self.protocol_version())
            .finish_non_exhaustive()
    }
}
