//! `issuer check`: every mistake of a configuration file, for people and for CI.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::config::{ConfigError, Given, Source};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file that `issuer serve --config` would read.
    #[arg(short, long, env = "ISSUER_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn check(args: CheckArgs) -> ExitCode {
    let file = args.config.display().to_string();
    let source = Source {
        given: Given::default(),
        file: Some(args.config),
    };
    match source.read() {
        Ok(_) => {
            println!("{file}: no mistakes");
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error),
    }
}

/// Mistakes as they are, one a line, for editors to jump to.
fn complain(error: &ConfigError) -> ExitCode {
    for mistake in error.mistakes() {
        eprintln!("{mistake}");
    }
    ExitCode::FAILURE
}
