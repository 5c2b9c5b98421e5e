//! Where a Workload API is (WE-08 to WE-10).

use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tonic::transport::{Channel, Uri};

/// `unix:///path`, `unix:/path`, `tcp://IP:port`, or the bare path of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// Address.
    Tcp(SocketAddr),
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(address) = text.strip_prefix("tcp://").or(text.strip_prefix("tcp:")) {
            let address = address.parse();
            return Ok(Self::Tcp(address.with_context(|| {
                format!("{text}: after tcp:// comes an IP address and a port, nothing else")
            })?));
        }
        let path = text.strip_prefix("unix://").or(text.strip_prefix("unix:"));
        let path = PathBuf::from(path.unwrap_or(text));
        if !path.is_absolute() {
            bail!("{text}: give unix:///PATH, tcp://IP:PORT or the absolute path of a socket");
        }
        Ok(Self::Unix(path))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Endpoint {
    /// A connection without anything on it.
    pub(crate) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        })
    }

    pub(super) async fn connect(&self, timeout: Duration) -> anyhow::Result<Channel> {
        let to = self.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let to = to.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(to.open().await?)) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let endpoint = endpoint.connect_timeout(timeout);
        endpoint
            .connect_with_connector(connect)
            .await
            .with_context(|| format!("cannot connect to {self}"))
    }
}
