//! `loadtest`: see the library for what its figures promise.

use std::{fmt::Display, process::ExitCode};

use anyhow::{Context, anyhow};
use clap::Parser;
use loadtest::{
    Failure,
    args::{
        Cli, Command, Resolved,
        conformance::{ConformanceArgs, Output},
        streams::StreamsArgs,
        tokens::TokensArgs,
    },
    certs, conformance, idle,
    process::Watched,
    report::{Report, Subject},
    serve, streams, tokens,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    raise_open_file_limit();
    match command {
        Command::Handshake(args) => load(args.resolve().map_err(Failure::Usage)?),
        Command::Rr(args) => load(args.resolve().map_err(Failure::Usage)?),
        Command::Bulk(args) => load(args.resolve().map_err(Failure::Usage)?),
        Command::Idle(args) => load(args.resolve().map_err(Failure::Usage)?),
        Command::Issue(args) => {
            let orders = args.resolve().map_err(Failure::Usage)?;
            load(orders.enrol()?)
        }
        Command::Conformance(args) => check_conformance(args),
        Command::Streams(args) => hold_streams(args),
        Command::Tokens(args) => fetch_tokens(args),
        Command::Serve(args) => {
            args.listen.check_listen().map_err(Failure::Usage)?;
            Ok(serve::run(
                args.mode,
                &args.listen,
                args.threads,
                args.lifetime,
            )?)
        }
        Command::Certs(args) => Ok(certs::write(&args.out, &args.trust_domain)?),
    }
}

fn check_conformance(args: ConformanceArgs) -> Result<(), Failure> {
    let (plan, output) = args.resolve();
    let report = runtime()?.block_on(conformance::run(&plan))?;
    show(&report, output)?;
    match report.broken().count() {
        0 => Ok(()),
        broken => Err(Failure::Run(anyhow!("{broken} norms are not kept"))),
    }
}

fn hold_streams(args: StreamsArgs) -> Result<(), Failure> {
    let (plan, processes, output) = args.resolve().map_err(Failure::Usage)?;
    let watched = Watched::find(&processes).map_err(Failure::Usage)?;
    let report = runtime()?.block_on(streams::run(&plan, &watched))?;
    Ok(show(&report, output)?)
}

fn fetch_tokens(args: TokensArgs) -> Result<(), Failure> {
    let (plan, output) = args.resolve().map_err(Failure::Usage)?;
    let report = runtime()?.block_on(tokens::run(&plan))?;
    Ok(show(&report, output)?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

fn show(report: &(impl Display + Serialize), output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text => println!("{report}"),
        Output::Json => {
            let json = serde_json::to_string_pretty(report);
            println!("{}", json.context("cannot write JSON")?);
        }
    }
    Ok(())
}

fn load(resolved: Resolved) -> Result<(), Failure> {
    let Resolved {
        mode,
        load,
        idle: plan,
        processes,
        max_error_rate,
        json,
    } = resolved;
    let watched = Watched::find(&processes).map_err(Failure::Usage)?;
    let subject = Subject {
        mode,
        target: load.target.to_string(),
        connections: load.connections,
        rate: load.rate,
    };
    let report = match plan {
        Some(plan) => Report::of_idle(subject, &idle::run(&load, plan, &watched)?),
        None => Report::of_run(subject, &load.run(&watched)?),
    };
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&report).context("cannot write JSON")?
        );
    } else {
        println!("{report}");
    }
    if report.succeeded + report.failed == 0 {
        return Err(Failure::Run(anyhow!(
            "nothing was measured: no operation began in the window; is the target stuck?"
        )));
    }
    if report.error_rate > max_error_rate {
        return Err(Failure::Run(anyhow!(
            "{} of {} operations failed, more than --max-error-rate {max_error_rate} admits",
            report.failed,
            report.succeeded + report.failed,
        )));
    }
    Ok(())
}

/// Thousands of connections need as many file descriptors: take what the system grants anyway.
fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If that fails the old limit stands, and connections beyond it are counted as errors.
    let _ = setrlimit(Resource::Nofile, raised);
}
