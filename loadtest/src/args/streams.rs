//! `loadtest streams`.

use std::{str::FromStr, time::Duration};

use anyhow::ensure;
use clap::Args;
use workload_api::client::Endpoint;

use super::{MOST_CONNECTIONS, ProcessArgs, conformance::Output, duration, this_machine};
use crate::{
    process::Selection,
    streams::{Kind, Plan},
};

/// Arguments of `streams`.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// Workload APIs: unix:///PATH, tcp://IP:PORT or the path of a socket; connections are
    /// made to each in turn.
    #[arg(value_parser = Endpoint::from_str, env = "SPIFFE_ENDPOINT_SOCKET", required = true)]
    endpoints: Vec<Endpoint>,
    /// What to ask for.
    #[arg(long, value_enum, default_value_t = Kind::X509)]
    kind: Kind,
    /// Streams.
    #[arg(short = 'c', long, default_value_t = 1000)]
    streams: usize,
    /// Of which so many share a connection.
    #[arg(long, value_name = "STREAMS", default_value_t = 1)]
    per_connection: usize,
    /// Streams that are there before memory is read for the first time.
    #[arg(long, value_name = "STREAMS", default_value_t = 50)]
    baseline: usize,
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
    /// A program that makes for the update, such as `issuer renew-now`.
    #[arg(last = true, requires = "watch", value_name = "PROGRAM")]
    rotate: Vec<String>,
}

impl StreamsArgs {
    /// What is to be done, of which processes memory is read, and how it is printed.
    pub fn resolve(self) -> anyhow::Result<(Plan, Selection, Output)> {
        for (flag, count, least) in [
            ("--streams", self.streams, 1),
            ("--per-connection", self.per_connection, 1),
            ("--baseline", self.baseline, 0),
        ] {
            ensure!(
                (least..=MOST_CONNECTIONS).contains(&count),
                "{flag} {count}: give {least} to {MOST_CONNECTIONS}"
            );
        }
        self.endpoints.iter().try_for_each(this_machine)?;
        let plan = Plan {
            endpoints: self.endpoints,
            kind: self.kind,
            streams: self.streams,
            per_connection: self.per_connection,
            baseline: self.baseline,
            settle: self.settle,
            watch: self.watch.unwrap_or_default(),
            rotate: self.rotate,
        };
        Ok((plan, self.processes.selection(), self.output))
    }
}
