//! The way to a running issuer: its admin socket.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use hyper_util::rt::TokioIo;
use proto::admin::v1::admin_service_client::AdminServiceClient;
use tokio::net::UnixStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::config::{ADMIN_SOCKET, DEFAULT_DATA_DIR};

/// Which issuer is meant.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Data directory of the issuer.
    #[arg(long, env = "ISSUER_DATA_DIR", value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Admin socket of the issuer [default: admin.sock in the data directory].
    #[arg(long, env = "ISSUER_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// A client of the admin API, and where it leads.
pub(super) struct Admin {
    client: AdminServiceClient<Channel>,
    socket: PathBuf,
}

impl Target {
    pub(super) async fn connect(&self) -> anyhow::Result<Admin> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => self.data_dir.join(ADMIN_SOCKET),
        };
        let path = socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is required and means nothing on a Unix socket.
        let channel = Endpoint::from_static("http://admin.socket")
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable(&socket, &error))?;
        Ok(Admin {
            client: AdminServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024),
            socket,
        })
    }
}

impl Admin {
    /// The client.
    pub(super) fn client(&mut self) -> &mut AdminServiceClient<Channel> {
        &mut self.client
    }

    /// What a failed call is to the operator: the issuer's own words where it
    /// answered.
    pub(super) fn failed(&self, status: Status) -> anyhow::Error {
        let answered = status.source().is_none() && status.code() != Code::Unknown;
        if answered {
            return anyhow::anyhow!("{}", status.message());
        }
        broke_off(&self.socket, status.message())
    }
}

fn unreachable(socket: &Path, error: &(dyn Error + 'static)) -> anyhow::Error {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => anyhow::anyhow!(
            "no issuer answers at {} ({cause}): start `issuer serve`, or name its data directory with --data-dir",
            socket.display()
        ),
        // It was there, and did not want us.
        _ => broke_off(socket, &cause.to_string()),
    }
}

fn broke_off(socket: &Path, why: &str) -> anyhow::Error {
    let uid = rustix::process::geteuid().as_raw();
    anyhow::anyhow!(
        "the issuer at {} broke off ({why}): it stopped, or your uid {uid} may not administrate it (root and its own user may; see --admin-uid)",
        socket.display()
    )
}
