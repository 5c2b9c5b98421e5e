//! The one writer, with group commit.
//!
//! A task owns the writing connection. It takes the work that waits, runs each
//! piece inside one transaction, commits, and only then lets the answers go. A
//! piece that fails is undone alone; a commit that fails undoes and fails all of
//! them. So no answer leaves before what it says is on the disk, and a flush
//! (milliseconds) is shared by everything that waited for the last one.
//!
//! Work can be run again: when the database asks for it (serialization failure,
//! deadlock), and when the connection was lost before the commit was asked for.
//! When the answer to a commit is lost, nobody knows what became of it: those who
//! waited are told that the store is unavailable, and what may be recorded was
//! granted to nobody. A server that does not answer at all is not waited for, and
//! whoever waits behind what found that out is told at once, too.
//!
//! After a failure the store is tried without work, again and again: who asks
//! whether it works before sending any would never send the one that shows it.

use std::{
    any::Any,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{AnyConnection, Connection};
use telemetry::request::Context;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument as _;

use super::{
    Database, Engine, StoreError,
    audit::signing::Signing,
    feed::{NOTIFY, Publisher},
    tx::{Committed, NotCommitted, Tx},
};

/// How many pieces of work may share a commit.
const BATCH_MAX: usize = 128;
/// How many may wait; beyond that, callers wait to be let in.
const QUEUE: usize = 1024;
/// How long a piece of work may wait for a server.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take to commit. (To begin: as long as for a piece of work.
/// Together with a connection that is less than a call may take.)
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to undo.
const UNDO_PATIENCE: Duration = Duration::from_secs(1);
/// How often work is run before it is given up.
const RUNS_MAX: u32 = 12;
/// How often a store that failed is tried while nobody writes.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// An error of a piece of work.
pub trait Failure: From<StoreError> + Send + 'static {
    /// The store's error, if it is one: some of them mean that the work is to be
    /// run again.
    fn store_error(&self) -> Option<&StoreError>;
}

impl Failure for StoreError {
    fn store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// What is to become of a piece that was run.
enum Verdict {
    Keep,
    Undo,
    RunAgain(StoreError),
}

/// A piece of work and the caller who waits for it.
trait Work: Send {
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Verdict>;
    /// How long it may wait for a server.
    fn patience(&self) -> Duration;
    /// Tells the caller, once the commit's fate is known.
    fn answer(self: Box<Self>, trouble: Option<&StoreError>);
}

struct Piece<W, T, E> {
    work: W,
    patience: Duration,
    result: Option<Result<T, E>>,
    caller: oneshot::Sender<Result<T, E>>,
    /// The request that it is done for, and its span.
    context: Context,
}

impl<W, T, E> Work for Piece<W, T, E>
where
    W: for<'t> FnMut(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send,
    T: Send,
    E: Failure,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Verdict> {
        async move {
            let result = self.context.clone().run((self.work)(tx)).await;
            let verdict = match &result {
                Ok(_) => Verdict::Keep,
                Err(error) => match error.store_error() {
                    Some(conflict @ StoreError::Conflict(_)) => Verdict::RunAgain(conflict.clone()),
                    _ => Verdict::Undo,
                },
            };
            self.result = Some(result);
            verdict
        }
        .boxed()
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn answer(self: Box<Self>, trouble: Option<&StoreError>) {
        let Self {
            work,
            result,
            caller,
            ..
        } = *self;
        // Before the answer: who gets it may own alone what the work held.
        drop(work);
        let result = match (trouble, result) {
            (Some(trouble), _) => Err(E::from(trouble.clone())),
            (None, Some(result)) => result,
            // It panicked.
            (None, None) => return,
        };
        // The caller may be gone.
        let _ = caller.send(result);
    }
}

/// Hands work to the writing task.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Work>>,
    trouble: Arc<Mutex<Option<String>>>,
    closing: Arc<watch::Sender<bool>>,
}

impl Writer {
    pub(super) fn start(
        database: Database,
        connection: AnyConnection,
        publisher: Arc<Publisher>,
        signing: Arc<Mutex<Option<Arc<Signing>>>>,
    ) -> Self {
        let (queue, work) = mpsc::channel(QUEUE);
        let (closing, close) = watch::channel(false);
        let trouble = Arc::new(Mutex::new(None));
        let task = WriterTask {
            engine: database.engine(),
            database,
            connection: Some(connection),
            work,
            publisher,
            signing,
            trouble: trouble.clone(),
        };
        tokio::spawn(task.run(close));
        Self {
            queue,
            trouble,
            closing: Arc::new(closing),
        }
    }

    /// Runs `work` in a transaction and returns what it returned, after the
    /// commit. If the caller goes away the work is still finished: what was
    /// decided is recorded.
    pub(super) async fn write<T, E, W>(&self, patience: Duration, work: W) -> Result<T, E>
    where
        W: for<'t> FnMut(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Failure,
    {
        let (caller, answered) = oneshot::channel();
        let gone = || {
            let trouble = self.trouble();
            let why = trouble.unwrap_or_else(|| "the write was abandoned".to_owned());
            E::from(StoreError::Unavailable(why))
        };
        let span = tracing::debug_span!("store_commit");
        let piece = Box::new(Piece {
            work,
            patience,
            result: None,
            caller,
            context: Context::current().with_span(&span),
        });
        let _queued = Queued::begin();
        let committed = async {
            self.queue.send(piece).await.map_err(|_| gone())?;
            answered.await.unwrap_or_else(|_| Err(gone()))
        };
        committed.instrument(span).await
    }

    /// Why nothing can be written, as far as is known.
    pub(super) fn trouble(&self) -> Option<String> {
        let told = self.trouble.lock();
        let told = told.unwrap_or_else(PoisonError::into_inner).clone();
        let ended = || self.queue.is_closed() && !*self.closing.borrow();
        told.or_else(|| ended().then(|| "its writer has ended: restart the issuer".to_owned()))
    }

    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        self.queue.closed().await;
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Counts a piece of work until its answer.
struct Queued;

impl Queued {
    fn begin() -> Self {
        metrics::gauge!("issuer_store_queue_depth").increment(1.0);
        Self
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        metrics::gauge!("issuer_store_queue_depth").decrement(1.0);
    }
}

struct WriterTask {
    engine: Engine,
    database: Database,
    /// None after it was lost.
    connection: Option<AnyConnection>,
    work: mpsc::Receiver<Box<dyn Work>>,
    publisher: Arc<Publisher>,
    signing: Arc<Mutex<Option<Arc<Signing>>>>,
    trouble: Arc<Mutex<Option<String>>>,
}

/// A piece in a group; `None` once it panicked.
type Group = Vec<Option<Box<dyn Work>>>;

impl WriterTask {
    async fn run(mut self, mut close: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                work = self.work.recv() => match work {
                    Some(first) => self.batch(first).await,
                    None => break,
                },
                () = closed(&mut close) => {
                    while let Ok(first) = self.work.try_recv() {
                        self.batch(first).await;
                    }
                    break;
                }
                () = self.publisher.unrest.notified() => {}
                () = tokio::time::sleep(TRY_AGAIN), if self.is_restless() => {
                    let mut nothing = Group::new();
                    let outcome = self.run_group(&mut nothing).await;
                    self.end(nothing, outcome).await;
                }
            }
        }
        if let Some(connection) = self.connection {
            let close = async { Ok(connection.close().await?) };
            if let Err(error) = within(self.engine, END_PATIENCE, close).await {
                tracing::warn!(%error, "the store did not close cleanly");
            }
        }
        // Dropping the receiver now tells `close` that the database is closed.
        drop(self.work);
    }

    async fn batch(&mut self, first: Box<dyn Work>) {
        let begun = Instant::now();
        let mut group: Group = vec![Some(first)];
        let outcome = self.run_group(&mut group).await;
        metrics::histogram!("issuer_store_batch_size").record(group.len() as f64);
        metrics::histogram!("issuer_store_commit_duration_seconds")
            .record(begun.elapsed().as_secs_f64());
        if let Err(error) = &outcome {
            metrics::counter!("issuer_store_failures_total").increment(1);
            tracing::error!(%error, "nothing was written");
        }
        self.end(group, outcome).await;
    }

    /// Publishes what a group has brought about, and tells those who wait for it.
    async fn end(&mut self, mut group: Group, outcome: Result<Committed, StoreError>) {
        let mut changed = false;
        let trouble = match outcome {
            Ok(committed) => {
                changed = committed.changed;
                self.publisher.publish(committed.catalog, &committed.head);
                None
            }
            Err(error) => Some(error.for_caller()),
        };
        if trouble.is_some() && self.connection.is_none() {
            // There is no server: nobody need wait as long again to learn the same.
            while let Ok(behind) = self.work.try_recv() {
                group.push(Some(behind));
            }
        }
        if trouble.is_none() && self.is_in_trouble() {
            tracing::info!("the store can be written again");
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) =
            trouble.as_ref().map(ToString::to_string);
        for piece in group.into_iter().flatten() {
            piece.answer(trouble.as_ref());
        }
        if changed && self.publisher.gives_notice() {
            self.give_notice().await;
        }
    }

    /// Whether there is something to write though nobody asks for it.
    fn is_restless(&self) -> bool {
        self.is_in_trouble() || self.publisher.lost().is_some()
    }

    fn is_in_trouble(&self) -> bool {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Tells other issuers that there is something new. Apart from the transaction: a
    /// notice that fails must not undo what it tells of.
    async fn give_notice(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let notify = async { Ok(sqlx::query(NOTIFY).execute(&mut connection).await?) };
        if within(self.engine, UNDO_PATIENCE, notify).await.is_ok() {
            self.connection = Some(connection);
        }
    }

    /// Runs the group to its end. What panics beside the work itself (a signer) must not
    /// stop the writer either; the connection is gone with it, and all that was done.
    async fn run_group(&mut self, group: &mut Group) -> Result<Committed, StoreError> {
        let run = AssertUnwindSafe(self.until_it_ends(group)).catch_unwind();
        run.await.unwrap_or_else(|panic| {
            log_panic(panic.as_ref());
            let why = "the writer panicked, see the log".to_owned();
            Err(StoreError::Unavailable(why))
        })
    }

    /// Runs the group, again and again where the database asks for it.
    async fn until_it_ends(&mut self, group: &mut Group) -> Result<Committed, StoreError> {
        let mut run = 1;
        loop {
            let was_connected = self.connection.is_some();
            let failed = match self.transaction(group).await {
                Ok(committed) => return Ok(committed),
                Err(failed) => failed,
            };
            let conflict = matches!(failed.error, StoreError::Conflict(_));
            // It is made anew; if that does not help, it is the server that is away.
            let lost = was_connected && self.connection.is_none();
            if failed.in_doubt || run == RUNS_MAX || !(conflict || lost) {
                return Err(failed.error);
            }
            metrics::counter!("issuer_store_reruns_total").increment(1);
            tokio::time::sleep(pause(run)).await;
            run += 1;
        }
    }

    async fn transaction(&mut self, group: &mut Group) -> Result<Committed, NotCommitted> {
        let (connection, is_new) = match self.connection.take() {
            Some(connection) => (connection, false),
            None => (self.database.connect().await?, true),
        };
        let known = self.publisher.known();
        let published = known.catalog.clone();
        let begin = async { Ok(Tx::begin(connection, self.engine, published).await) };
        let mut tx = match within(self.engine, PATIENCE, begin).await? {
            Ok(tx) => tx,
            Err((connection, error)) => {
                self.put_back(connection, &error);
                return Err(error.into());
            }
        };
        let signing = self
            .signing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if group.is_empty() {
            tx.prove_that_it_writes();
        }
        let lost = self.publisher.lost();
        let checked = match (&lost, is_new) {
            (Some(lost), _) => within(self.engine, PATIENCE, tx.outlive(lost)).await,
            (None, true) => within(self.engine, PATIENCE, tx.check_past(&known)).await,
            (None, false) => Ok(()),
        };
        let worked = match checked {
            Ok(()) => self.pieces(&mut tx, group).await,
            failed => failed,
        };
        let result = match worked {
            Ok(()) => {
                let commit = tx.commit(signing.as_deref(), SystemTime::now());
                let commit = async { Ok(commit.await) };
                let committed = within(self.engine, END_PATIENCE, commit).await;
                committed.unwrap_or_else(|error| {
                    Err(NotCommitted {
                        error,
                        in_doubt: true,
                    })
                })
            }
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(committed) => {
                self.connection = Some(tx.into_connection());
                if lost.is_some() {
                    self.publisher.note_lost(None);
                }
                Ok(committed)
            }
            Err(failed) => {
                let undo = async {
                    tx.rollback().await;
                    Ok(())
                };
                // What does not even answer to this is dropped.
                if within(self.engine, UNDO_PATIENCE, undo).await.is_ok() {
                    self.put_back(tx.into_connection(), &failed.error);
                }
                Err(failed)
            }
        }
    }

    /// Keeps a connection after an error on it, if it is the right one for sure. A server
    /// that only reads since another took over answers, and would refuse for ever.
    fn put_back(&mut self, connection: AnyConnection, error: &StoreError) {
        if self.engine == Engine::Sqlite || matches!(error, StoreError::Conflict(_)) {
            self.connection = Some(connection);
        }
    }

    async fn pieces(&mut self, tx: &mut Tx, group: &mut Group) -> Result<(), StoreError> {
        let mut next = 0;
        loop {
            if next == group.len() {
                if next >= BATCH_MAX {
                    return Ok(());
                }
                let Ok(work) = self.work.try_recv() else {
                    return Ok(());
                };
                group.push(Some(work));
            }
            run_piece(self.engine, tx, &mut group[next]).await?;
            next += 1;
        }
    }
}

/// Waits for a server no longer than this. (A file answers when its disk does; to
/// stop waiting for it would leave the work under way.)
async fn within<T>(
    engine: Engine,
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match engine {
        Engine::Sqlite => work.await,
        Engine::Postgres => match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable(format!(
                "the database has not answered within {limit:?}"
            ))),
        },
    }
}

async fn run_piece(
    engine: Engine,
    tx: &mut Tx,
    piece: &mut Option<Box<dyn Work>>,
) -> Result<(), StoreError> {
    let Some(work) = piece else {
        return Ok(());
    };
    let mark = tx.mark();
    // A panic in one request must not stop the authority.
    let patience = work.patience();
    let run = async { Ok(AssertUnwindSafe(work.run(tx)).catch_unwind().await) };
    match within(engine, patience, run).await? {
        Ok(Verdict::Keep) => tx.keep().await,
        Ok(Verdict::Undo) => tx.undo(mark).await,
        Ok(Verdict::RunAgain(conflict)) => Err(conflict),
        Err(panic) => {
            log_panic(panic.as_ref());
            *piece = None;
            tx.undo(mark).await
        }
    }
}

/// How long is waited before work is run again: longer each time, and not the
/// same for two issuers that stand in each other's way.
fn pause(run: u32) -> Duration {
    let mut random = [0u8; 2];
    // Without randomness the pauses are alike, and that is all.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let share = 0.5 + f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    Duration::from_millis(4 << run.min(6)).mul_f64(share)
}

/// Returns when the store is to close (or nobody is left who could say so).
async fn closed(close: &mut watch::Receiver<bool>) {
    let _ = close.wait_for(|closing| *closing).await;
}

fn log_panic(panic: &(dyn Any + Send)) {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(message, "a request panicked; what it did was undone");
}
