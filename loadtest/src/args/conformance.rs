//! `loadtest conformance`.

use std::{str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use workload_api::client::Endpoint;

use super::duration;
use crate::conformance::Plan;

/// Arguments of `conformance`.
#[derive(Debug, Args)]
pub struct ConformanceArgs {
    /// The Workload API: unix:///PATH, tcp://IP:PORT or the path of a socket.
    #[arg(value_parser = Endpoint::from_str, env = "SPIFFE_ENDPOINT_SOCKET")]
    endpoint: Endpoint,
    /// Longest time for an answer, such as 500ms.
    #[arg(long, default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// How long to wait for an update of an open stream: have something rotated meanwhile.
    #[arg(long, value_parser = duration)]
    watch: Option<Duration>,
    /// A table for people, or JSON for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    Text,
    /// JSON.
    Json,
}

impl ConformanceArgs {
    /// What is to be done, and how its report is printed.
    pub fn resolve(self) -> (Plan, Output) {
        let plan = Plan {
            endpoint: self.endpoint,
            timeout: self.timeout,
            watch: self.watch.unwrap_or_default(),
        };
        (plan, self.output)
    }
}
