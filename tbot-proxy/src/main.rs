//! The command `tbot-proxy`.

use std::process::ExitCode;

use clap::Parser;
use tbot_proxy::cli::Cli;

/// Tells who allocated what (`tbot-proxy debug profile heap`).
#[cfg(feature = "profiling")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
