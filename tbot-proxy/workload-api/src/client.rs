//! A client's side of a Workload API: of this agent's, or of any other.

use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr};

use hyper_util::rt::TokioIo;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{self, Channel, Uri},
};

use crate::service::HEADER;

#[cfg(test)]
mod tests;

/// Where a Workload API is: `unix:///path`, `unix:/path`, `tcp://IP:port`, or the bare
/// absolute path of a socket (SPIFFE Workload Endpoint 4, WE-08 to WE-10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// Address.
    Tcp(SocketAddr),
}

/// A text that names no endpoint.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no Workload API: write unix:///path, tcp://IP:port or the absolute path of a socket"
)]
pub struct NotAnEndpoint(String);

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        let wrong = || NotAnEndpoint(text.to_owned());
        if let Some(address) = text.strip_prefix("tcp:") {
            let address = address.strip_prefix("//").unwrap_or(address);
            return address.parse().map(Self::Tcp).map_err(|_| wrong());
        }
        let path = text.strip_prefix("unix://").or(text.strip_prefix("unix:"));
        let path = PathBuf::from(path.unwrap_or(text));
        match path.is_absolute() {
            true => Ok(Self::Unix(path)),
            false => Err(wrong()),
        }
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
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Endpoint {
    /// A connection without anything on it.
    pub async fn open(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        })
    }

    /// A connection for gRPC.
    pub async fn channel(&self) -> Result<Channel, transport::Error> {
        let to = self.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let to = to.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(to.open().await?)) }
        });
        transport::Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
    }

    /// A client that sends what every request needs, over a connection of its own.
    pub async fn client(&self) -> Result<Client, transport::Error> {
        Ok(client(self.channel().await?))
    }
}

/// A client that sends what every request needs.
pub type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, SecurityHeader>>;

/// A client over this connection.
pub fn client(channel: Channel) -> Client {
    SpiffeWorkloadApiClient::with_interceptor(channel, SecurityHeader)
}

/// Adds `workload.spiffe.io: true` to requests (WE-04).
#[derive(Debug, Clone, Copy)]
pub struct SecurityHeader;

impl Interceptor for SecurityHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::from_static("true");
        request.metadata_mut().insert(HEADER, value);
        Ok(request)
    }
}
