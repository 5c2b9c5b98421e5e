//! A connection to the target: TCP or Unix socket, plain or under TLS, read and written alike.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{OpError, OpErrorKind, address::Address};

/// A connected socket of either kind.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// Unix stream.
    Unix(UnixStream),
}

impl Socket {
    /// Connects to `address`.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(addr) => {
                let tcp = TcpStream::connect(addr).await?;
                tcp.set_nodelay(true)?;
                Ok(Self::Tcp(tcp))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
        }
    }
}

/// A connection that carries bytes.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(Socket),
    /// After a TLS handshake.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// Connects to `address` and does the TLS handshake, if there is a `tls` configuration.
    pub async fn open(
        address: &Address,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> Result<Self, OpError> {
        let socket = Socket::connect(address)
            .await
            .map_err(|e| OpError::new(OpErrorKind::Connect, format_args!("{address}: {e}")))?;
        let Some((config, name)) = tls else {
            return Ok(Self::Plain(socket));
        };
        let stream = TlsConnector::from(config)
            .connect(name, socket)
            .await
            .map_err(|e| OpError::new(OpErrorKind::Handshake, e))?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// State of the TLS connection, if it is one.
    pub fn tls(&self) -> Option<&rustls::ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.get_ref().1),
        }
    }

    /// Sends one byte and waits for its echo: proof that the target accepted us (a TLS 1.3 client
    /// is done before its certificate has been looked at) and that the backend answers.
    pub async fn probe(&mut self) -> Result<(), OpError> {
        const PROBE: u8 = b'?';
        self.send(&[PROBE])
            .await
            .map_err(|e| OpError::from_io(&e))?;
        let mut answer = [0];
        self.read_exact(&mut answer)
            .await
            .map_err(|e| OpError::from_io(&e))?;
        if answer != [PROBE] {
            return Err(OpError::new(
                OpErrorKind::Corrupt,
                "the probe byte came back changed: is an echo backend behind the target?",
            ));
        }
        Ok(())
    }

    /// Writes all of `bytes` and flushes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// Ends our direction and waits for the target's end, so that its work for this connection is
    /// over when this returns. What goes wrong here is no longer part of the operation.
    pub async fn finish(mut self) {
        let mut rest = [0; 512];
        if self.shutdown().await.is_ok() {
            while matches!(self.read(&mut rest).await, Ok(n) if n > 0) {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}
