//! The command `tbot-proxy`.

use std::process::ExitCode;

use clap::Parser;
use tbot_proxy::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
