//! The TLS handshake over a socket.
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    AlertDescription, ClientConfig, Error, InvalidMessage, ServerConfig, pki_types::ServerName,
};

use crate::{Socket, TlsStream, buffers::Buffers, engine::Engine};

/// TLS handshake as server. The caller bounds its time; dropping the future closes the socket.
///
/// The returned stream has everything the peer sent along with its last flight.
///
/// # Errors
/// The peer closes, the socket fails, or TLS fails; then the alert has been sent as far as the socket took it.
pub fn accept(
    io: Socket,
    config: Arc<ServerConfig>,
) -> impl Future<Output = Result<TlsStream, HandshakeError>> + Send {
    Handshake::new(io, Engine::server(config))
}

/// TLS handshake as client. The caller bounds its time; dropping the future closes the socket.
///
/// With TLS 1.3 it ends before the server has judged the client's certificate: a refusal arrives as
/// the first thing that is read.
///
/// # Errors
/// As [`accept`].
pub fn connect(
    io: Socket,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> impl Future<Output = Result<TlsStream, HandshakeError>> + Send {
    Handshake::new(io, Engine::client(config, name))
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
    Tls(#[source] Error),
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        match error {
            Error::AlertReceived(AlertDescription::CloseNotify) => Self::Closed,
            error => Self::Tls(error),
        }
    }
}

/// A handshake in progress. Holds the engine and what has come in of an unfinished message.
enum Handshake {
    Running(TlsStream),
    /// The configuration is at fault, found before the first byte.
    Failed(Option<HandshakeError>),
}

impl Handshake {
    fn new(io: Socket, engine: Result<Box<Engine>, Error>) -> Self {
        let mut stream = match engine {
            Ok(engine) => TlsStream::new(io, engine),
            Err(error) => return Self::Failed(Some(error.into())),
        };
        // A client speaks first.
        match Buffers::with(|buffers| {
            stream.process(&mut buffers.tls_in[..0], &mut buffers.plain_out)
        }) {
            Ok(_) => Self::Running(stream),
            Err(error) => Self::Failed(Some(error.into())),
        }
    }
}

impl Future for Handshake {
    type Output = Result<TlsStream, HandshakeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let result = match this {
            Self::Running(stream) => ready!(Buffers::with(|buffers| poll_run(stream, cx, buffers))),
            Self::Failed(error) => Err(error.take().unwrap_or(HandshakeError::Closed)),
        };
        // Leaves the variant that answers "closed" to a caller who polls again.
        Poll::Ready(
            match (std::mem::replace(this, Self::Failed(None)), result) {
                (Self::Running(stream), Ok(())) => Ok(stream),
                (_, Ok(())) => Err(HandshakeError::Closed),
                (_, Err(error)) => Err(error),
            },
        )
    }
}

fn poll_run(
    stream: &mut TlsStream,
    cx: &mut Context<'_>,
    buffers: &mut Buffers,
) -> Poll<Result<(), HandshakeError>> {
    loop {
        let flushed = stream.socket.poll_flush(cx, &mut stream.outgoing);
        flushed.map_err(HandshakeError::Io)?;
        if !stream.engine.facts().is_handshaking() {
            // Tickets that the socket did not take go before the first data.
            return Poll::Ready(Ok(()));
        }
        if !stream.outgoing.is_empty() {
            return Poll::Pending;
        }
        let kept = stream.incoming.len();
        if kept == buffers.tls_in.len() {
            let error = Error::InvalidMessage(InvalidMessage::MessageTooLarge);
            return Poll::Ready(Err(HandshakeError::Tls(error)));
        }
        let read = ready!(stream.socket.poll_read(cx, &mut buffers.tls_in[kept..]));
        let filled = match read {
            Ok(0) => return Poll::Ready(Err(HandshakeError::Closed)),
            Ok(count) => stream.incoming.move_to(&mut buffers.tls_in) + count,
            Err(error) => return Poll::Ready(Err(HandshakeError::Io(error))),
        };
        buffers.plain_out.clear();
        let processed = stream.process(&mut buffers.tls_in[..filled], &mut buffers.plain_out);
        stream.received.append(&buffers.plain_out);
        match processed {
            Ok(consumed) => stream.incoming.append(&buffers.tls_in[consumed..filled]),
            Err(error) => {
                let _ = stream.socket.poll_flush(cx, &mut stream.outgoing);
                let _ = stream.socket.shutdown_write();
                return Poll::Ready(Err(error.into()));
            }
        }
    }
}
