//! Mode `idle`: what an open connection costs that carries nothing.
//!
//! A few connections are opened first, so that what a process allocates once (pools, worker
//! buffers) is in the baseline; then the rest; memory is read in between and after, and the
//! difference divided by the connections of the rest. Each connection has proven itself by an
//! echo when it was opened, and is asked for another at the end: those that are dead are errors.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::{
    OpError,
    client_tls::Negotiated,
    process::{Memory, Root, Watched},
    run::{Link, Load, within},
    stream::Stream,
    tally::Tally,
};

/// Connections that are opened at one time.
const OPENING: usize = 16;

/// How an idle run goes.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Connections that are open already when memory is first read.
    pub baseline: usize,
    /// Wait before each reading, for the processes to come to rest.
    pub settle: Duration,
    /// Time to hold all connections after the second reading.
    pub hold: Duration,
}

/// What it came to.
#[derive(Debug)]
pub struct Outcome {
    /// Failures; each success is a connection alive at the end.
    pub tally: Tally,
    /// Connections between the two readings.
    pub opened: usize,
    /// Memory of each watched process before and after.
    pub memory: Vec<(Root, Memory, Memory)>,
}

/// Opens `load.connections` beyond the baseline and measures `watched`.
pub fn run(load: &Load, plan: Plan, watched: &Watched) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut tally = Tally::new()?;
        let mut streams = open(load, plan.baseline, &mut tally).await;
        tokio::time::sleep(plan.settle).await;
        let before = watched.memory()?;

        let rest = open(load, load.connections, &mut tally).await;
        let opened = rest.len();
        streams.extend(rest);
        tokio::time::sleep(plan.settle).await;
        let after = watched.memory()?;

        tokio::time::sleep(plan.hold).await;
        for stream in &mut streams {
            match within(load.bounds.op_timeout, stream.probe()).await {
                Ok(()) => tally.succeeded += 1,
                Err(error) => tally.fail(error),
            }
        }
        tally.negotiated = streams.first().and_then(Stream::tls).map(Negotiated::of);
        let roots = watched.roots().iter().cloned();
        let memory = roots
            .zip(before)
            .zip(after)
            .map(|((root, a), b)| (root, a, b))
            .collect();
        Ok(Outcome {
            tally,
            opened,
            memory,
        })
    })
}

async fn open(load: &Load, count: usize, tally: &mut Tally) -> Vec<Stream> {
    let mut streams = Vec::with_capacity(count);
    let mut opening: JoinSet<Result<Stream, OpError>> = JoinSet::new();
    for number in 0..count {
        if opening.len() >= OPENING {
            keep(opening.join_next().await, &mut streams, tally);
        }
        let link = Link::new(load, number);
        let timeout = load.bounds.op_timeout;
        opening.spawn_local(within(timeout, async move {
            let mut stream = link.open_unbounded().await?;
            stream.probe().await?;
            Ok(stream)
        }));
    }
    while !opening.is_empty() {
        keep(opening.join_next().await, &mut streams, tally);
    }
    streams
}

fn keep(
    joined: Option<Result<Result<Stream, OpError>, tokio::task::JoinError>>,
    streams: &mut Vec<Stream>,
    tally: &mut Tally,
) {
    match joined {
        Some(Ok(Ok(stream))) => streams.push(stream),
        Some(Ok(Err(error))) => tally.fail(error),
        // Only a panic ends here, which has been printed.
        Some(Err(_)) | None => {}
    }
}
