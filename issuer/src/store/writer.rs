//! The one writer, with group commit.
//!
//! A task owns the writing connection. It takes the work that waits, runs each
//! piece inside a savepoint of one transaction, commits, and only then lets the
//! answers go. A piece that fails is undone alone; a commit that fails undoes and
//! fails all of them. So no answer leaves before what it says is on the disk, and
//! a flush (milliseconds) is shared by everything that waited for the last one.

use std::{
    any::Any,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::StoreError;

/// How many pieces of work may share a commit.
const BATCH_MAX: usize = 128;
/// How many may wait; beyond that, callers wait to be let in.
const QUEUE: usize = 1024;

/// What commits have changed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sequence number of the newest audit event.
    pub audit_sequence: u64,
    /// Rises when bots, roles, instances or locks change.
    pub access: u64,
    /// The newest order to renew: its epoch, and the window to spread it over.
    pub renew: Option<(u64, Duration)>,
}

/// A transaction under way.
pub struct Tx {
    connection: SqliteConnection,
    changes: Changes,
}

impl Tx {
    /// The connection, inside the transaction.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// What commits and this transaction have changed; published by the commit.
    pub fn changes(&mut self) -> &mut Changes {
        &mut self.changes
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(&mut self.connection).await?;
        Ok(())
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

/// How a piece of work ended, to be told once the commit's fate is known.
struct Ended {
    keep: bool,
    answer: Box<dyn FnOnce(Option<StoreError>) + Send>,
}

type Work = Box<dyn for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Ended> + Send>;

/// Hands work to the writing task.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Work>,
    changes: watch::Receiver<Changes>,
    trouble: Arc<Mutex<Option<String>>>,
    closing: Arc<watch::Sender<bool>>,
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection, audit_sequence: u64) -> Self {
        let changes = Changes {
            audit_sequence,
            ..Changes::default()
        };
        let (queue, work) = mpsc::channel(QUEUE);
        let (publish, follow) = watch::channel(changes);
        let (closing, close) = watch::channel(false);
        let trouble = Arc::new(Mutex::new(None));
        let task = WriterTask {
            tx: Tx {
                connection,
                changes,
            },
            work,
            publish,
            trouble: trouble.clone(),
        };
        tokio::spawn(task.run(close));
        Self {
            queue,
            changes: follow,
            trouble,
            closing: Arc::new(closing),
        }
    }

    /// Runs `work` in a transaction and returns what it returned, after the
    /// commit. If the caller goes away the work is still finished: what was
    /// decided is recorded.
    pub(super) async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |tx| {
            async move {
                let result = work(tx).await;
                Ended {
                    keep: result.is_ok(),
                    answer: Box::new(move |trouble| {
                        let result = match trouble {
                            None => result,
                            Some(trouble) => Err(E::from(trouble)),
                        };
                        // The caller may be gone.
                        let _ = answer.send(result);
                    }),
                }
            }
            .boxed()
        });
        let gone = || {
            let trouble = self.trouble();
            let why = trouble.unwrap_or_else(|| "the write was abandoned".to_owned());
            E::from(StoreError::Unavailable(why))
        };
        self.queue.send(work).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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

struct WriterTask {
    tx: Tx,
    work: mpsc::Receiver<Work>,
    publish: watch::Sender<Changes>,
    trouble: Arc<Mutex<Option<String>>>,
}

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
            }
        }
        if let Err(error) = self.tx.connection.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
        // Dropping the receiver now tells `close` that the file is closed.
        drop(self.work);
    }

    async fn batch(&mut self, first: Work) {
        let begun = Instant::now();
        let committed = self.tx.changes;
        let mut ended = Vec::new();
        let outcome = self.transaction(first, &mut ended).await;
        metrics::histogram!("issuer_store_batch_size").record(ended.len() as f64);
        metrics::histogram!("issuer_store_commit_duration_seconds")
            .record(begun.elapsed().as_secs_f64());
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(()) => {
                *trouble = None;
                let changes = self.tx.changes;
                self.publish
                    .send_if_modified(|published| std::mem::replace(published, changes) != changes);
            }
            Err(error) => {
                metrics::counter!("issuer_store_failures_total").increment(1);
                tracing::error!(%error, "nothing was written");
                *trouble = Some(error.to_string());
                self.tx.changes = committed;
            }
        }
        drop(trouble);
        for ended in ended {
            (ended.answer)(outcome.as_ref().err().cloned());
        }
    }

    async fn transaction(&mut self, first: Work, ended: &mut Vec<Ended>) -> Result<(), StoreError> {
        self.tx.execute("BEGIN IMMEDIATE").await?;
        let result = self.pieces(first, ended).await;
        let result = match result {
            Ok(()) => self.tx.execute("COMMIT").await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            // SQLite may have rolled back by itself: then this says so, and
            // that is all it can say.
            let _ = self.tx.execute("ROLLBACK").await;
        }
        result
    }

    async fn pieces(&mut self, first: Work, ended: &mut Vec<Ended>) -> Result<(), StoreError> {
        let mut next = Some(first);
        while let Some(work) = next {
            self.tx.execute("SAVEPOINT piece").await?;
            let before = self.tx.changes;
            // A panic in one request must not stop the authority.
            let end = AssertUnwindSafe(work(&mut self.tx)).catch_unwind().await;
            let keep = end.as_ref().is_ok_and(|ended| ended.keep);
            if let Ok(end) = end {
                ended.push(end);
            } else {
                log_panic(end.err());
            }
            if !keep {
                self.tx.changes = before;
                self.tx.execute("ROLLBACK TO piece").await?;
            }
            self.tx.execute("RELEASE piece").await?;
            next = match ended.len() {
                BATCH_MAX.. => None,
                _ => self.work.try_recv().ok(),
            };
        }
        Ok(())
    }
}

/// Returns when the store is to close (or nobody is left who could say so).
async fn closed(close: &mut watch::Receiver<bool>) {
    let _ = close.wait_for(|closing| *closing).await;
}

fn log_panic(panic: Option<Box<dyn Any + Send>>) {
    let message = panic
        .as_ref()
        .and_then(|panic| panic.downcast_ref::<&str>())
        .copied()
        .unwrap_or("no message");
    tracing::error!(message, "a request panicked; what it did was undone");
}
