//! What commands that ask a Workload API share.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use tonic::{Code, Status};
use workload_api::client::{Client, Endpoint};

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
        default_value = "unix:///run/tbot-proxy/workload.sock"
    )]
    socket: Endpoint,
}

impl Socket {
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        within(self.socket.client()).await?.map_err(|error| {
            anyhow!(
                "cannot connect to the Workload API at {}: {}; is the agent running? --socket or SPIFFE_ENDPOINT_SOCKET names another",
                self.socket,
                innermost(&error)
            )
        })
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
