//! Mode `streams`: what an open stream of a Workload API costs its server, and how long a
//! rotation takes to reach all of them.
//!
//! Each stream has a connection of its own, as each workload has. A few are opened first,
//! so that what a process allocates once is in the baseline; then the rest; memory is read
//! in between and after, and the difference divided by the streams of the rest. Then, if
//! asked, every stream waits for one more message: something rotates meanwhile.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::task::JoinSet;
use workload_api::client::Endpoint;

use crate::{
    conformance::raw::{Answer, Connection},
    process::Watched,
};

/// Streams that are opened at one time.
const OPENING: usize = 32;
/// Streams in the baseline.
const BASELINE: usize = 50;

/// What the streams are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// FetchX509SVID.
    X509,
    /// StreamSecrets, of the secret `default`.
    Sds,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server, on this machine.
    pub endpoint: Endpoint,
    /// What is asked for.
    pub kind: Kind,
    /// Streams beyond the baseline.
    pub streams: usize,
    /// Wait before each reading of memory.
    pub settle: Duration,
    /// How long to wait for an update on every stream; zero: not at all.
    pub watch: Duration,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Report {
    kind: Kind,
    streams: usize,
    processes: Vec<Process>,
    rotation: Option<Rotation>,
}

#[derive(Debug, Serialize)]
struct Process {
    name: String,
    pid: u32,
    rss_before: u64,
    rss_after: u64,
    bytes_per_stream: f64,
}

#[derive(Debug, Serialize)]
struct Rotation {
    /// From the first stream's message to the last one's.
    spread_seconds: f64,
}

/// Opens, measures and waits.
pub async fn run(plan: &Plan, watched: &Watched) -> anyhow::Result<Report> {
    let mut open = streams(plan, BASELINE).await?;
    tokio::time::sleep(plan.settle).await;
    let before = watched.memory()?;
    open.extend(streams(plan, plan.streams).await?);
    tokio::time::sleep(plan.settle).await;
    let after = watched.memory()?;
    let rotation = match plan.watch.is_zero() {
        true => None,
        false => Some(rotation(open, plan.watch).await?),
    };
    let memory = before.iter().zip(&after);
    let processes = watched.roots().iter().zip(memory);
    Ok(Report {
        kind: plan.kind,
        streams: plan.streams,
        processes: processes
            .map(|(root, (before, after))| Process {
                name: root.name.clone(),
                pid: root.pid,
                rss_before: before.rss,
                rss_after: after.rss,
                bytes_per_stream: (after.rss as f64 - before.rss as f64) / plan.streams as f64,
            })
            .collect(),
        rotation,
    })
}

async fn streams(plan: &Plan, count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut opening = JoinSet::new();
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        if opening.len() >= OPENING
            && let Some(stream) = opening.join_next().await
        {
            open.push(stream.context("a stream could not be opened")??);
        }
        let (endpoint, kind) = (plan.endpoint.clone(), plan.kind);
        opening.spawn(async move {
            let mut connection = Connection::open(&endpoint).await?;
            let answer = match kind {
                Kind::X509 => connection.fetch_x509("localhost").await?,
                Kind::Sds => connection.stream_secrets("default").await?,
            };
            match answer {
                Answer::Message => Ok(connection),
                other => bail!("the server answers {other:?} where a message was expected"),
            }
        });
    }
    while let Some(stream) = opening.join_next().await {
        open.push(stream.context("a stream could not be opened")??);
    }
    Ok(open)
}

/// Waits for a message on every stream.
async fn rotation(open: Vec<Connection>, watch: Duration) -> anyhow::Result<Rotation> {
    let streams = open.len();
    let mut waiting = JoinSet::new();
    for mut connection in open {
        waiting.spawn(async move {
            let answer = connection.next_message().await;
            (answer, Instant::now(), connection)
        });
    }
    // What has come stays open: its end is not part of this.
    let mut done = Vec::with_capacity(streams);
    let all = async {
        while let Some(one) = waiting.join_next().await {
            let (answer, when, connection) = one.context("a stream could not be followed")?;
            match answer {
                Ok(Answer::Message) => done.push((when, connection)),
                other => bail!("a stream ended where an update was expected: {other:?}"),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(watch, all).await {
        Ok(result) => result?,
        Err(_) => bail!("not every stream had an update within {watch:?}"),
    }
    let times = || done.iter().map(|(when, _)| *when);
    let (first, last) = times()
        .min()
        .zip(times().max())
        .context("there is no stream")?;
    Ok(Rotation {
        spread_seconds: (last - first).as_secs_f64(),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} streams of {:?}", self.streams, self.kind)?;
        for process in &self.processes {
            write!(
                f,
                "\n{} ({}): {:.0} bytes a stream, RSS {} to {} KiB",
                process.name,
                process.pid,
                process.bytes_per_stream,
                process.rss_before / 1024,
                process.rss_after / 1024
            )?;
        }
        if let Some(rotation) = &self.rotation {
            write!(
                f,
                "\nan update had reached all {:.3} s after it had reached the first",
                rotation.spread_seconds
            )?;
        }
        Ok(())
    }
}
