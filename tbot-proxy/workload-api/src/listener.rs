//! Where the server listens.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use unix_socket::{BindError, SocketFile};

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Removed with it.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Binds a Unix socket (see [`unix_socket::bind`]); its file has this mode, and goes
    /// with the listener. Must be called within a runtime.
    pub fn bind_unix(path: &Path, mode: u32) -> Result<Self, BindError> {
        let (listener, file) = unix_socket::bind(path, mode)?;
        let listener = UnixListener::from_std(listener).map_err(|source| BindError::Listen {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            socket: Socket::Unix(listener),
            _file: Some(file),
        })
    }

    /// Binds a TCP socket. Whoever reaches the address is the workload as far as the
    /// backend can tell (WE-03): loopback or link-local.
    pub async fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::Tcp(TcpListener::bind(address).await?);
        Ok(Self {
            socket,
            _file: None,
        })
    }

    /// The address, for clients: `unix:PATH` or `tcp:IP:PORT` as a URI (WE-08 to WE-10).
    pub fn uri(&self) -> io::Result<String> {
        match &self.socket {
            Socket::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(PathBuf::from).unwrap_or_default();
                Ok(format!("unix://{}", path.display()))
            }
            Socket::Tcp(listener) => Ok(format!("tcp://{}", listener.local_addr()?)),
        }
    }

    /// The next connection. Cancellation loses none.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Messages are small: each is to leave at once.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// A socket that somebody else has made to listen: handed over by systemd, for one.
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self {
            socket: Socket::Unix(listener),
            _file: None,
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self {
            socket: Socket::Tcp(listener),
            _file: None,
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

macro_rules! forward {
    ($this:ident, $method:ident($($argument:expr),*)) => {
        match &mut *$this {
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
