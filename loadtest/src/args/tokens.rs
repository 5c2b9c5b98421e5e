//! `loadtest tokens`.

use std::str::FromStr;

use anyhow::ensure;
use clap::Args;
use workload_api::client::Endpoint;

use super::{conformance::Output, this_machine};
use crate::tokens::Plan;

/// Arguments of `tokens`.
#[derive(Debug, Args)]
pub struct TokensArgs {
    /// The Workload API: unix:///PATH, tcp://IP:PORT or the path of a socket.
    #[arg(value_parser = Endpoint::from_str, env = "SPIFFE_ENDPOINT_SOCKET")]
    endpoint: Endpoint,
    /// For whom the tokens are.
    #[arg(long, default_value = "loadtest")]
    audience: String,
    /// Calls, one after the other.
    #[arg(short = 'n', long, default_value_t = 5000)]
    calls: u32,
    /// Text for people, or JSON for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl TokensArgs {
    /// What is to be done, and how it is printed.
    pub fn resolve(self) -> anyhow::Result<(Plan, Output)> {
        ensure!(
            (1..=1_000_000).contains(&self.calls),
            "--calls {}: give 1 to 1000000",
            self.calls
        );
        ensure!(
            self.audience.len() < 127,
            "--audience: give fewer than 127 bytes"
        );
        this_machine(&self.endpoint)?;
        let plan = Plan {
            endpoint: self.endpoint,
            audience: self.audience,
            calls: self.calls,
        };
        Ok((plan, self.output))
    }
}
