//! `loadtest streams`.

use std::{str::FromStr, time::Duration};

use anyhow::ensure;
use clap::Args;
use workload_api::client::Endpoint;

use super::{MOST_CONNECTIONS, ProcessArgs, conformance::Output, duration};
use crate::{
    address::Address,
    process::Selection,
    streams::{Kind, Plan},
};

/// Arguments of `streams`.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// The Workload API: unix:///PATH, tcp://IP:PORT or the path of a socket.
    #[arg(value_parser = Endpoint::from_str, env = "SPIFFE_ENDPOINT_SOCKET")]
    endpoint: Endpoint,
    /// What to ask for.
    #[arg(long, value_enum, default_value_t = Kind::X509)]
    kind: Kind,
    /// Streams, each on a connection of its own.
    #[arg(short = 'c', long, default_value_t = 1000)]
    streams: usize,
    /// Wait before memory is read.
    #[arg(long, default_value = "2s", value_parser = duration)]
    settle: Duration,
    /// Wait so long for an update on every stream: have something rotated meanwhile.
    #[arg(long, value_parser = duration)]
    watch: Option<Duration>,
    /// Text for people, or JSON for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    processes: ProcessArgs,
}

impl StreamsArgs {
    /// What is to be done, of which processes memory is read, and how it is printed.
    pub fn resolve(self) -> anyhow::Result<(Plan, Selection, Output)> {
        ensure!(
            (1..=MOST_CONNECTIONS).contains(&self.streams),
            "--streams {}: give 1 to {MOST_CONNECTIONS}",
            self.streams
        );
        // Load is sent to this machine only.
        if let Endpoint::Tcp(address) = self.endpoint {
            Address::Tcp(address).check_target(false)?;
        }
        let plan = Plan {
            endpoint: self.endpoint,
            kind: self.kind,
            streams: self.streams,
            settle: self.settle,
            watch: self.watch.unwrap_or_default(),
        };
        Ok((plan, self.processes.selection(), self.output))
    }
}
