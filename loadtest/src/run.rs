//! One measured run: generator threads around, accounting at the edges of the window.
//!
//! Each generator thread has its own single-threaded runtime and its share of the connections.
//! Connections that live through the run are opened before its warm-up begins. The main thread
//! only sleeps until an edge of the window and reads the accounts there.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    OpError, OpErrorKind,
    address::Address,
    bulk::{self, Direction},
    client_tls::{ClientTls, Negotiated, Resume, is_resumed},
    handshake, issue,
    pace::{Pace, Schedule},
    process::{Root, Watched},
    request,
    stream::Stream,
    tally::Tally,
    window::{Bounds, Phase, Window},
};

/// What one operation is.
#[derive(Debug, Clone)]
pub enum Work {
    /// Connect, TLS handshake and (unless told not to) one byte there and back.
    Handshake {
        /// Whether the byte is sent.
        probe: bool,
    },
    /// A request and its response on a connection that stays.
    Request(request::Sizes),
    /// One chunk of an endless transfer.
    Bulk {
        /// Which way.
        direction: Direction,
        /// Bytes.
        chunk: usize,
    },
    /// A request for SVIDs on an agent's connection, which stays.
    Issue(Arc<issue::Plan>),
}

/// A run, resolved.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub target: Address,
    /// Others, tried in order when the one before cannot be used (issue).
    pub fallbacks: Vec<Address>,
    /// With TLS, and how: one for all connections, or one for each; empty: without.
    pub tls: Vec<ClientTls>,
    /// Connections at one time.
    pub connections: usize,
    /// Generator threads.
    pub threads: usize,
    /// Operations per second over all connections; `None`: closed loop.
    pub rate: Option<f64>,
    /// How long and how much.
    pub bounds: Bounds,
    /// What is done.
    pub work: Work,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Counts and latencies of the measured operations.
    pub tally: Tally,
    /// Length of the window.
    pub elapsed: Duration,
    /// Operations that ended well between the two readings of the accounts.
    pub completed: u64,
    /// Payload bytes carried between the two readings.
    pub bytes: u64,
    /// SVIDs received between the two readings.
    pub svids: u64,
    /// CPU time of each watched process between the two readings.
    pub cpu: Vec<(Root, Duration)>,
    /// CPU time of the generator itself.
    pub generator_cpu: Duration,
}

impl Load {
    /// Runs it, accounting for `watched`.
    pub fn run(&self, watched: &Watched) -> anyhow::Result<Outcome> {
        let threads = self.threads.clamp(1, self.connections.max(1));
        thread::scope(|scope| {
            let (ready_tx, ready_rx) = mpsc::channel();
            let (done_tx, done_rx) = mpsc::channel::<()>();
            let mut starts = Vec::new();
            let mut generators = Vec::new();
            for index in 0..threads {
                let (start_tx, start_rx) = mpsc::channel();
                let (ready_tx, done_tx) = (ready_tx.clone(), done_tx.clone());
                starts.push(start_tx);
                let body = move || {
                    let result = self.generate(Share { index, of: threads }, ready_tx, &start_rx);
                    drop(done_tx);
                    result
                };
                let builder = thread::Builder::new().name(format!("generator-{index}"));
                generators.push(
                    builder
                        .spawn_scoped(scope, body)
                        .context("cannot start a thread")?,
                );
            }
            drop((ready_tx, done_tx));

            let ready = ready_rx.iter().take(threads).count();
            let edges = if ready == threads {
                Some(self.measure(watched, &starts, &done_rx)?)
            } else {
                None // a generator failed; joining it says why
            };
            drop(starts);

            let mut tally = Tally::new()?;
            for generator in generators {
                let result = generator
                    .join()
                    .map_err(|_| anyhow!("a generator thread panicked"))?;
                tally.merge(result?)?;
            }
            let (before, after) = edges.context("a generator thread ended before it was ready")?;
            let roots = watched.roots().iter().cloned();
            let cpu = before
                .cpu
                .iter()
                .zip(&after.cpu)
                .map(|(a, b)| b.saturating_sub(*a));
            Ok(Outcome {
                tally,
                elapsed: after.at - before.at,
                completed: after.completed - before.completed,
                bytes: after.bytes - before.bytes,
                svids: after.svids - before.svids,
                cpu: roots.zip(cpu).collect(),
                generator_cpu: after.generator_cpu.saturating_sub(before.generator_cpu),
            })
        })
    }

    /// Lets the generators start and reads the accounts at both edges of the window.
    fn measure(
        &self,
        watched: &Watched,
        starts: &[mpsc::Sender<Arc<Window>>],
        done: &mpsc::Receiver<()>,
    ) -> anyhow::Result<(Edge, Edge)> {
        // Without a warm-up the first reading must be before the first operation.
        let unstarted = Window::new(Instant::now(), self.bounds);
        let first = Edge::read(&unstarted, watched)?;
        let window = Arc::new(Window::new(Instant::now(), self.bounds));
        for start in starts {
            let _ = start.send(window.clone()); // a generator that is gone says why when joined
        }
        let before = if self.bounds.warmup.is_zero() {
            first
        } else {
            thread::sleep(
                window
                    .measure_from()
                    .saturating_duration_since(Instant::now()),
            );
            Edge::read(&window, watched)?
        };
        let left = window.until().saturating_duration_since(Instant::now());
        let _ = done.recv_timeout(left); // either all generators are done or the time is up
        Ok((before, Edge::read(&window, watched)?))
    }

    /// Body of one generator thread.
    fn generate(
        &self,
        share: Share,
        ready: mpsc::Sender<()>,
        start: &mpsc::Receiver<Arc<Window>>,
    ) -> anyhow::Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let tally = Rc::new(RefCell::new(Tally::new()?));
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let connections = share.of_connections(self.connections);
            let prepared = self.prepare(share, connections).await;
            let _ = ready.send(());
            drop(ready);
            let Ok(window) = start.recv() else {
                return Ok(()); // another generator failed
            };
            self.work(share, prepared, &window, &tally).await
        })?;
        drop(local);
        let tally = Rc::into_inner(tally).context("a worker outlived its run")?;
        Ok(tally.into_inner())
    }

    /// Opens the connections that live through the run. One that cannot be opened is tried again,
    /// and counted, by its worker.
    async fn prepare(&self, share: Share, connections: usize) -> Vec<(Link, Option<Stream>)> {
        let persistent = !matches!(self.work, Work::Handshake { .. });
        let mut prepared = Vec::with_capacity(connections);
        for index in 0..connections {
            let link = Link::new(self, share.number(index));
            let stream = match persistent {
                true => link.open(self.bounds.op_timeout).await.ok(),
                false => None,
            };
            prepared.push((link, stream));
        }
        prepared
    }

    async fn work(
        &self,
        share: Share,
        prepared: Vec<(Link, Option<Stream>)>,
        window: &Arc<Window>,
        tally: &Rc<RefCell<Tally>>,
    ) -> anyhow::Result<()> {
        let workers = prepared.len();
        let schedule = self.rate.map(|rate| share.of_rate(rate, window.start()));
        let pace = schedule.clone().map_or(Pace::Closed, Pace::Open);
        let mut tasks = JoinSet::new();
        for (index, (link, stream)) in prepared.into_iter().enumerate() {
            let window = window.clone();
            let worker = Worker {
                link,
                window,
                pace: pace.clone(),
                tally: tally.clone(),
            };
            match self.work.clone() {
                Work::Handshake { probe } => tasks.spawn_local(handshake::work(worker, probe)),
                Work::Request(sizes) => tasks.spawn_local(request::work(worker, stream, sizes)),
                Work::Bulk { direction, chunk } => {
                    tasks.spawn_local(bulk::work(worker, stream, direction, chunk))
                }
                Work::Issue(plan) => {
                    tasks.spawn_local(issue::work(worker, stream, plan, share.number(index)))
                }
            };
        }
        let whole = async {
            if let Some(schedule) = &schedule {
                let announced = schedule.announce(window.until(), workers).await;
                announced.context("cannot set a timer")?;
            }
            all_ended(&mut tasks).await
        };
        tokio::select! {
            ended = whole => ended?,
            ordered = ordered_to_end() => {
                ordered?;
                window.end();
                if let Some(schedule) = &schedule {
                    schedule.release(workers);
                }
                all_ended(&mut tasks).await?;
            }
        }
        let whole = !window.is_ended() && !window.count_used_up();
        if let Some(schedule) = schedule.filter(|_| whole) {
            let untaken = schedule.untaken(window.measure_from(), window.until());
            let error = OpError::new(
                OpErrorKind::Unsent,
                "no connection was free: the target (or this generator) cannot keep up with --rate",
            );
            tally.borrow_mut().fail_many(error, untaken);
        }
        Ok(())
    }
}

async fn all_ended(tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| anyhow!("a worker failed: {e}"))?;
    }
    Ok(())
}

/// Returns on SIGINT or SIGTERM: the run is to end before its time, with its report.
async fn ordered_to_end() -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The accounts at one edge of the window.
#[derive(Debug)]
struct Edge {
    at: Instant,
    completed: u64,
    bytes: u64,
    svids: u64,
    cpu: Vec<Duration>,
    generator_cpu: Duration,
}

impl Edge {
    fn read(window: &Window, watched: &Watched) -> anyhow::Result<Self> {
        let generator_cpu = Watched::myself()
            .cpu()?
            .first()
            .copied()
            .unwrap_or_default();
        Ok(Self {
            cpu: watched.cpu()?,
            at: Instant::now(),
            completed: window.completed(),
            bytes: window.bytes(),
            svids: window.svids(),
            generator_cpu,
        })
    }
}

/// Which part of the load one thread generates.
#[derive(Debug, Clone, Copy)]
struct Share {
    index: usize,
    of: usize,
}

impl Share {
    fn of_connections(self, connections: usize) -> usize {
        connections / self.of + usize::from(self.index < connections % self.of)
    }

    /// The number of this thread's connection among all.
    fn number(self, index: usize) -> usize {
        self.index + index * self.of
    }

    /// Every `of`-th operation of the whole schedule.
    fn of_rate(self, rate: f64, start: Instant) -> Rc<Schedule> {
        let between = Duration::from_secs_f64(1.0 / rate);
        let threads = u32::try_from(self.of).unwrap_or(u32::MAX);
        let index = u32::try_from(self.index).unwrap_or(u32::MAX);
        Schedule::new(start + between * index, between * threads)
    }
}

/// How one worker connects.
#[derive(Debug)]
pub struct Link {
    /// Used one at a time.
    targets: Vec<Address>,
    target: Cell<usize>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    resume: Resume,
}

impl Link {
    /// As `load` says for the connection of this number, with TLS tickets of its own.
    pub fn new(load: &Load, number: usize) -> Self {
        let tls = load.tls.get(number % load.tls.len().max(1));
        Self {
            targets: std::iter::once(&load.target)
                .chain(&load.fallbacks)
                .cloned()
                .collect(),
            target: Cell::new(0),
            tls: tls.map(ClientTls::for_worker),
            resume: tls.map_or(Resume::Never, ClientTls::resume),
        }
    }

    /// The next connection goes to the next target.
    pub fn try_next_target(&self) {
        self.target.set(self.target.get() + 1);
    }

    /// Whether there is more than one target.
    pub fn has_fallback(&self) -> bool {
        self.targets.len() > 1
    }

    /// Opens a connection within `timeout`.
    pub async fn open(&self, timeout: Duration) -> Result<Stream, OpError> {
        within(timeout, self.open_unbounded()).await
    }

    /// Opens a connection; the caller bounds its time.
    pub async fn open_unbounded(&self) -> Result<Stream, OpError> {
        let target = &self.targets[self.target.get() % self.targets.len()];
        Stream::open(target, self.tls.clone()).await
    }
}

/// Bounds the time of one operation.
pub async fn within<T>(
    timeout: Duration,
    operation: impl Future<Output = Result<T, OpError>>,
) -> Result<T, OpError> {
    match tokio::time::timeout(timeout, operation).await {
        Ok(result) => result,
        Err(_) => Err(OpError::new(
            OpErrorKind::Timeout,
            format_args!("not finished within {timeout:?}"),
        )),
    }
}

/// What a worker needs to take operations and to account for them.
#[derive(Debug)]
pub struct Worker {
    /// How it connects.
    pub link: Link,
    /// The run's window.
    pub window: Arc<Window>,
    pace: Pace,
    tally: Rc<RefCell<Tally>>,
}

/// An operation that has been started.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    due: Instant,
    at: Instant,
    measured: bool,
}

impl Worker {
    /// Takes the next operation when it is due; `None` when the run is over.
    pub async fn take(&self) -> Option<Started> {
        let due = self.pace.next().await;
        let at = Instant::now();
        // A backlog is worked off for one operation's longest time, no longer.
        let phase = match at > self.window.until() + self.window.op_timeout {
            true => Phase::Over,
            false => self.window.claim(due),
        };
        match phase {
            Phase::Over => None,
            phase => Some(Started {
                due,
                at,
                measured: phase == Phase::Measured,
            }),
        }
    }

    /// Accounts for an operation's end, now.
    pub async fn ended(&self, started: Started, result: Result<(), OpError>) {
        match result {
            Ok(()) => {
                self.window.complete();
                if started.measured {
                    let now = Instant::now();
                    self.tally
                        .borrow_mut()
                        .succeed(now - started.due, now - started.at);
                }
            }
            Err(error) => {
                if started.measured {
                    self.tally.borrow_mut().fail(error);
                }
                // Something is broken: do not hammer it.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Accounts for SVIDs that were received, whatever else became of the operation.
    pub fn received(&self, started: Started, svids: u64) {
        self.window.receive(svids);
        if started.measured {
            self.tally.borrow_mut().svids += svids;
        }
    }

    /// Accounts for a finished handshake. In the measured window one that should have been
    /// resumed and was not is an error.
    pub fn shaken(&self, started: Started, stream: &Stream) -> Result<(), OpError> {
        let Some(tls) = stream.tls() else {
            return Ok(());
        };
        let resumed = is_resumed(tls);
        let mut tally = self.tally.borrow_mut();
        if tally.negotiated.is_none() {
            tally.negotiated = Some(Negotiated::of(tls));
        }
        if !started.measured {
            return Ok(());
        }
        match resumed {
            true => tally.resumed_handshakes += 1,
            false => tally.full_handshakes += 1,
        }
        if self.link.resume == Resume::Always && !resumed {
            return Err(OpError::new(
                OpErrorKind::NotResumed,
                "a full handshake although a session was offered: does the target send tickets?",
            ));
        }
        Ok(())
    }

    /// Notes what an already open connection settled on.
    pub fn note_negotiated(&self, stream: &Stream) {
        self.tally.borrow_mut().negotiated = stream.tls().map(Negotiated::of);
    }
}
