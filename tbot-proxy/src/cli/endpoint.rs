//! A client of a Workload API: of this agent's, or of any other.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use hyper_util::rt::TokioIo;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::net::{TcpStream, UnixStream};
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};

/// How long a connection and a first answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which Workload API.
#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The Workload API: unix:///path or tcp://IP:port (WE-07 to WE-10).
    #[arg(
        long,
        env = "SPIFFE_ENDPOINT_SOCKET",
        value_name = "URI",
        default_value = "unix:///run/tbot-proxy/workload.sock",
        value_parser = parse
    )]
    socket: Address,
}

#[derive(Debug, Clone)]
enum Address {
    Unix(PathBuf),
    Tcp(std::net::SocketAddr),
}

fn parse(uri: &str) -> Result<Address, String> {
    let wrong = || format!("`{uri}` is no Workload API: write unix:///path or tcp://IP:port");
    if let Some(path) = uri.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path.starts_with('/') {
            true => Ok(Address::Unix(PathBuf::from(path))),
            false => Err(wrong()),
        };
    }
    let address = uri.strip_prefix("tcp://").ok_or_else(wrong)?;
    address.parse().map(Address::Tcp).map_err(|_| wrong())
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A client that sends what every request needs.
pub(super) type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, Header>>;

/// `workload.spiffe.io: true` (WE-04).
#[derive(Debug, Clone)]
pub(super) struct Header;

impl Interceptor for Header {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::from_static("true");
        request.metadata_mut().insert("workload.spiffe.io", value);
        Ok(request)
    }
}

impl Socket {
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let connect = async {
            let endpoint = Endpoint::from_static("http://localhost");
            match self.socket.clone() {
                Address::Unix(path) => {
                    let connect = tower::service_fn(move |_: Uri| {
                        let path = path.clone();
                        async move { UnixStream::connect(path).await.map(TokioIo::new) }
                    });
                    endpoint.connect_with_connector(connect).await
                }
                Address::Tcp(address) => {
                    let connect = tower::service_fn(move |_: Uri| async move {
                        TcpStream::connect(address).await.map(TokioIo::new)
                    });
                    endpoint.connect_with_connector(connect).await
                }
            }
        };
        let channel = within(connect).await?.map_err(|error| {
            anyhow!(
                "cannot connect to the Workload API at {}: {}; is the agent running? --socket or SPIFFE_ENDPOINT_SOCKET names another",
                self.socket,
                innermost(&error)
            )
        })?;
        Ok(SpiffeWorkloadApiClient::with_interceptor(channel, Header))
    }
}

/// What comes of a call, or why not, in a line.
pub(super) async fn answer<T>(call: impl Future<Output = Result<T, Status>>) -> anyhow::Result<T> {
    within(call).await?.map_err(|status| told(&status))
}

/// A refusal, with what to do about it.
pub(super) fn told(status: &Status) -> anyhow::Error {
    let message = terminal::plain(status.message());
    match status.code() {
        Code::PermissionDenied => anyhow!(
            "no identity for this process: {message}; `tbot-proxy attest --pid N` shows what the agent sees of a process, `issuer explain` what policy makes of it"
        ),
        Code::Unavailable => anyhow!("not available now: {message}; `tbot-proxy status` says more"),
        Code::Unimplemented => anyhow!("this Workload API does not offer that: {message}"),
        code => anyhow!("{code}: {message}"),
    }
}

async fn within<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => Ok(done),
        Err(_) => bail!("no answer within {} s", PATIENCE.as_secs()),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// Runs a command that talks to somebody.
pub(super) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(work)
}
