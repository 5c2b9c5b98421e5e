//! Mode `streams`: what an open stream of a Workload API costs its server, and how soon a
//! rotation reaches all of them.
//!
//! A few streams are opened first if asked, so that what a process allocates once is in
//! the baseline; then the rest; memory is read in between and after, and the difference
//! divided by the streams of the rest. Then, if asked, something is told to rotate, and
//! every stream waits for a message more.

use std::{
    fmt,
    process::Stdio,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::{process::Command, task::JoinSet};
use workload_api::client::Endpoint;

use crate::{
    conformance::raw::{Answer, Call, Connection},
    process::Watched,
};

/// Connections that are opened at one time.
const OPENING: usize = 32;
/// How long streams are read before something is told to rotate: what has come by then
/// is older.
const QUIET: Duration = Duration::from_millis(200);

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
    /// Servers on this machine, which connections are made to in turn.
    pub endpoints: Vec<Endpoint>,
    /// What is asked for.
    pub kind: Kind,
    /// Streams beyond the baseline.
    pub streams: usize,
    /// Of which so many share a connection.
    pub per_connection: usize,
    /// Streams in the baseline.
    pub baseline: usize,
    /// Wait before each reading of memory.
    pub settle: Duration,
    /// How long to wait for an update on every stream; zero: not at all.
    pub watch: Duration,
    /// A program that makes for the update, with its arguments; none: somebody else does.
    pub rotate: Vec<String>,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Report {
    kind: Kind,
    streams: usize,
    connections: usize,
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
    /// From the start of the program that makes for it to the last stream's message.
    last_seconds: f64,
    /// From the first stream's message to the last one's.
    spread_seconds: f64,
}

/// A connection and the streams on it.
struct Held {
    connection: Connection,
    streams: Vec<u32>,
}

/// Opens, measures and waits.
pub async fn run(plan: &Plan, watched: &Watched) -> anyhow::Result<Report> {
    let mut open = hold(plan, plan.baseline).await?;
    tokio::time::sleep(plan.settle).await;
    let before = watched.memory()?;
    let rest = hold(plan, plan.streams).await?;
    let connections = rest.len();
    open.extend(rest);
    tokio::time::sleep(plan.settle).await;
    let after = watched.memory()?;
    let rotation = match plan.watch.is_zero() {
        true => None,
        false => Some(rotation(open, plan).await?),
    };
    let memory = before.iter().zip(&after);
    let processes = watched.roots().iter().zip(memory);
    Ok(Report {
        kind: plan.kind,
        streams: plan.streams,
        connections,
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

/// Opens so many streams, and waits for the first message of each.
async fn hold(plan: &Plan, count: usize) -> anyhow::Result<Vec<Held>> {
    let mut opening = JoinSet::new();
    let mut open = Vec::new();
    let mut endpoints = plan.endpoints.iter().cycle();
    let mut left = count;
    while left > 0 {
        if opening.len() >= OPENING
            && let Some(held) = opening.join_next().await
        {
            open.push(held.context("streams could not be opened")??);
        }
        let endpoint = endpoints.next().context("there is no server")?.clone();
        let streams = plan.per_connection.min(left);
        left -= streams;
        let call = match plan.kind {
            Kind::X509 => Call::X509,
            Kind::Sds => Call::Secret("default"),
        };
        opening.spawn(async move {
            let mut held = Held {
                connection: Connection::open(&endpoint).await?,
                streams: Vec::with_capacity(streams),
            };
            for _ in 0..streams {
                held.streams
                    .push(held.connection.call("localhost", call).await?);
            }
            held.message_each(None).await?;
            Ok::<_, anyhow::Error>(held)
        });
    }
    while let Some(held) = opening.join_next().await {
        open.push(held.context("streams could not be opened")??);
    }
    Ok(open)
}

impl Held {
    /// Waits for a message on each stream: for one after `since`, once that is known.
    /// When the first came, and when the last.
    async fn message_each(
        &mut self,
        since: Option<&OnceLock<Instant>>,
    ) -> anyhow::Result<(Instant, Instant)> {
        let mut waiting = self.streams.clone();
        let mut first = None;
        loop {
            let (id, answer) = self.connection.next().await?;
            if answer != Answer::Message {
                bail!("the server answers {answer:?} where a message was expected");
            }
            if since.is_some_and(|since| since.get().is_none()) {
                continue;
            }
            let now = Instant::now();
            waiting.retain(|waiting| *waiting != id);
            let first = *first.get_or_insert(now);
            if waiting.is_empty() {
                return Ok((first, now));
            }
        }
    }
}

/// Has something rotate, and waits for a message on every stream.
async fn rotation(open: Vec<Held>, plan: &Plan) -> anyhow::Result<Rotation> {
    let since = Arc::new(OnceLock::new());
    let mut waiting = JoinSet::new();
    for mut held in open {
        let since = since.clone();
        waiting.spawn(async move {
            let times = held.message_each(Some(&since)).await;
            (times, held)
        });
    }
    if !plan.rotate.is_empty() {
        tokio::time::sleep(QUIET).await;
    }
    let begun = *since.get_or_init(Instant::now);
    rotate(&plan.rotate).await?;
    // What has come stays open: its end is not part of this.
    let mut done = Vec::new();
    let all = async {
        while let Some(one) = waiting.join_next().await {
            let (times, held) = one.context("a stream could not be followed")?;
            done.push((times?, held));
        }
        Ok::<_, anyhow::Error>(())
    };
    match tokio::time::timeout(plan.watch, all).await {
        Ok(result) => result?,
        Err(_) => bail!("not every stream had an update within {:?}", plan.watch),
    }
    let first = done.iter().map(|((first, _), _)| *first).min();
    let last = done.iter().map(|((_, last), _)| *last).max();
    let (first, last) = first.zip(last).context("there is no stream")?;
    drop(done);
    Ok(Rotation {
        last_seconds: (last - begun).as_secs_f64(),
        spread_seconds: (last - first).as_secs_f64(),
    })
}

async fn rotate(command: &[String]) -> anyhow::Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let program_said = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = program_said
        .await
        .with_context(|| format!("{program} could not be started"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} ended with {}: {}", output.status, said.trim());
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} streams of {:?} on {} connections",
            self.streams, self.kind, self.connections
        )?;
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
                "\nan update had reached all after {:.3} s, {:.3} s after it had reached the first",
                rotation.last_seconds, rotation.spread_seconds
            )?;
        }
        Ok(())
    }
}
