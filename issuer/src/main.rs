//! The `issuer` program.

use std::process::ExitCode;

/// A request makes and frees some hundred small things, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    issuer::cli::run()
}
