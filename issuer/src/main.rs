//! The `issuer` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    issuer::cli::run()
}
