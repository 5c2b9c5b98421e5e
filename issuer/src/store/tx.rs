//! A transaction under way, as a piece of work sees it.
//!
//! Audit events are kept in memory and written in one statement before the
//! commit; a savepoint is made when a piece first asks for the connection. So a
//! piece that only records an event costs the database no statement of its own.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::AnyConnection;

use super::{
    Engine, StoreError,
    audit::{
        rows::{self, ChainedEvent},
        signing::Signing,
    },
    backup::Header,
    feed,
    feed::Known,
    from_millis, head,
    head::{Head, HeadSignature},
    settings, to_i64,
};
use crate::{audit::Event, catalog::Catalog};

/// How many events there are at most between two signed checkpoints.
const CHECKPOINT_EVENTS: u64 = 1000;
/// How much time passes at most between two signed checkpoints when events come.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(60);
/// Clocks of issuers that share a store differ by less.
const CLOCK_STEP: Duration = Duration::from_secs(600);
/// For how many revisions a deletion is remembered.
const REMEMBERED: u64 = 100_000;

/// A transaction under way. It is shared by pieces of work, each of which can be
/// undone alone.
pub struct Tx {
    connection: AnyConnection,
    begun: Head,
    /// What was published when it began; may be older than the head.
    published: Arc<Catalog>,
    head: Head,
    /// The catalog as this transaction sees it, until it changes something more.
    catalog: Option<Arc<Catalog>>,
    events: Vec<ChainedEvent>,
    /// Whether there is a savepoint that the piece under way can go back to.
    savepoint: bool,
    /// Whether a piece that was kept may have written.
    written: bool,
}

/// Where a piece began: what is gone back to if it is undone.
pub(super) struct Mark {
    head: Head,
    catalog: Option<Arc<Catalog>>,
    events: usize,
}

/// What a commit has brought about.
pub(super) struct Committed {
    pub(super) head: Head,
    pub(super) catalog: Arc<Catalog>,
    /// Whether what decisions read is different now.
    pub(super) changed: bool,
}

/// Why a transaction did not commit.
pub(super) struct NotCommitted {
    pub(super) error: StoreError,
    /// The commit was asked for and its answer got lost: it may have happened.
    pub(super) in_doubt: bool,
}

impl From<StoreError> for NotCommitted {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            in_doubt: false,
        }
    }
}

impl Tx {
    pub(super) async fn begin(
        mut connection: AnyConnection,
        engine: Engine,
        published: Arc<Catalog>,
    ) -> Result<Self, (AnyConnection, StoreError)> {
        if let Err(error) = sqlx::query(engine.begin()).execute(&mut connection).await {
            return Err((connection, error.into()));
        }
        let head = match head::take(&mut connection).await {
            Ok(head) => head,
            Err(error) => {
                // It may be ended already; then this says so.
                let _ = sqlx::query("ROLLBACK").execute(&mut connection).await;
                return Err((connection, error));
            }
        };
        Ok(Self {
            connection,
            published,
            begun: head.clone(),
            head,
            catalog: None,
            events: Vec::new(),
            savepoint: false,
            written: false,
        })
    }

    /// On a new connection: if the database has lost what is known of it, everything is
    /// read anew and [outlived](Self::outlive).
    pub(super) async fn check_past(&mut self, known: &Known) -> Result<(), StoreError> {
        let revision = known.catalog.revision();
        if self.head.revision >= revision && known.is_past_of(&mut self.connection).await? {
            return Ok(());
        }
        tracing::error!("the database has lost its newest commits");
        self.published = feed::load(&mut self.connection, &self.head).await?;
        self.outlive(known).await
    }

    /// Counts past what the database has lost: what was decided on it is older than what
    /// this transaction sees, and no trust bundle has a number that another had (TB-03).
    pub(super) async fn outlive(&mut self, lost: &Known) -> Result<(), StoreError> {
        let revision = lost.catalog.revision();
        self.begun.revision = self.begun.revision.max(revision);
        self.bump();
        let key = settings::BUNDLE_SEQUENCE;
        let stored = settings::read_number(self.connection().await?, key).await?;
        let next = stored.max(lost.catalog.number(key)) + 1;
        settings::write(self, key, &next.to_string()).await?;
        self.keep().await
    }

    /// The connection, inside the transaction. Events that were appended are not
    /// in its tables before the commit.
    pub async fn connection(&mut self) -> Result<&mut AnyConnection, StoreError> {
        if !self.savepoint {
            self.execute("SAVEPOINT piece").await?;
            self.savepoint = true;
        }
        Ok(&mut self.connection)
    }

    /// The revision of what decisions read, as this transaction sees it: that of
    /// [`super::Store::catalog`] if nothing has changed since.
    pub fn revision(&self) -> u64 {
        self.head.revision
    }

    /// Says that something that decisions read is changed here, and returns the
    /// revision that the changed rows are to carry.
    pub fn bump(&mut self) -> u64 {
        self.head.revision = self.begun.revision + 1;
        self.catalog = None;
        self.head.revision
    }

    /// What decisions read, as this transaction sees it.
    pub async fn catalog(&mut self) -> Result<Arc<Catalog>, StoreError> {
        if let Some(catalog) = &self.catalog {
            return Ok(catalog.clone());
        }
        let catalog = if self.published.revision() == self.head.revision {
            self.published.clone()
        } else {
            feed::advance(&self.published, &mut self.connection, &self.head).await?
        };
        self.catalog = Some(catalog.clone());
        Ok(catalog)
    }

    /// Adds an event to the chain; its sequence number.
    pub(super) fn append(&mut self, event: &Event, now: SystemTime) -> u64 {
        let chained = rows::link(&self.head, event, now);
        self.head.sequence = chained.sequence;
        self.head.hash = chained.hash;
        self.events.push(chained);
        self.head.sequence
    }

    /// Remembers that a row is gone, for those who read only what changes.
    pub(super) async fn bury(&mut self, kind: &'static str, name: &str) -> Result<(), StoreError> {
        let changed = self.bump();
        if changed > self.head.forgotten + 2 * REMEMBERED {
            self.head.forgotten = changed - REMEMBERED;
            let forgotten = to_i64(self.head.forgotten);
            sqlx::query("DELETE FROM tombstones WHERE changed <= $1")
                .bind(forgotten)
                .execute(self.connection().await?)
                .await?;
        }
        sqlx::query(
            "INSERT INTO tombstones (kind, name, changed) VALUES ($1, $2, $3)
             ON CONFLICT (kind, name) DO UPDATE SET changed = excluded.changed",
        )
        .bind(kind)
        .bind(name)
        .bind(to_i64(changed))
        .execute(self.connection().await?)
        .await?;
        Ok(())
    }

    /// Number of the newest event, as this transaction sees it.
    pub(super) fn audit_sequence(&self) -> u64 {
        self.head.sequence
    }

    /// Makes this empty store go on from where a backup was made; the revision that
    /// the restored rows are to carry.
    pub(super) fn continue_from(&mut self, backup: &Header) -> Result<u64, StoreError> {
        let hash = backup.hash().ok_or_else(|| {
            StoreError::Damaged("the backup's first line has no hash of the audit trail".to_owned())
        })?;
        self.begun.revision = self.begun.revision.max(backup.revision);
        let changed = self.bump();
        self.head = Head {
            sequence: backup.audit_sequence,
            hash,
            revision: changed,
            forgotten: changed,
            checkpoint: backup.checkpoint,
            checkpoint_time: from_millis(backup.checkpoint_ms),
        };
        Ok(changed)
    }

    /// Has the commit write, though nothing need be written.
    pub(super) fn prove_that_it_writes(&mut self) {
        self.written = true;
    }

    pub(super) fn mark(&mut self) -> Mark {
        Mark {
            head: self.head.clone(),
            catalog: self.catalog.clone(),
            events: self.events.len(),
        }
    }

    /// Ends a piece of work: what it did stays part of the transaction.
    pub(super) async fn keep(&mut self) -> Result<(), StoreError> {
        self.written |= self.savepoint || self.head != self.begun;
        if std::mem::take(&mut self.savepoint) {
            self.execute("RELEASE SAVEPOINT piece").await?;
        }
        Ok(())
    }

    /// Ends a piece of work: what it did is undone.
    pub(super) async fn undo(&mut self, mark: Mark) -> Result<(), StoreError> {
        self.head = mark.head;
        self.catalog = mark.catalog;
        self.events.truncate(mark.events);
        if std::mem::take(&mut self.savepoint) {
            self.execute("ROLLBACK TO SAVEPOINT piece").await?;
            self.execute("RELEASE SAVEPOINT piece").await?;
        }
        Ok(())
    }

    /// Makes what was kept durable.
    pub(super) async fn commit(
        &mut self,
        signing: Option<&Signing>,
        now: SystemTime,
    ) -> Result<Committed, NotCommitted> {
        let catalog = self.catalog().await?;
        if !self.written {
            self.rollback().await;
            return Ok(Committed {
                head: self.begun.clone(),
                catalog,
                changed: false,
            });
        }
        rows::insert(&mut self.connection, &self.events).await?;
        let signature = self.sign(signing, now).await?;
        head::write(&mut self.connection, &self.head, &signature).await?;
        if let Err(error) = sqlx::query("COMMIT").execute(&mut self.connection).await {
            // What the database wants to have again is undone; of anything else nobody
            // knows (SQLSTATE 40003 says so itself, a shutdown leaves it open).
            let error = StoreError::from(error);
            let in_doubt = !matches!(error, StoreError::Conflict(_));
            return Err(NotCommitted { error, in_doubt });
        }
        Ok(Committed {
            head: self.head.clone(),
            catalog,
            changed: self.head.revision != self.begun.revision,
        })
    }

    /// Signs the newest event, and keeps the signature as a checkpoint when one
    /// is due.
    async fn sign(
        &mut self,
        signing: Option<&Signing>,
        now: SystemTime,
    ) -> Result<HeadSignature, StoreError> {
        let Some(signing) = signing else {
            return Ok(HeadSignature {
                key_id: String::new(),
                time: now,
                signature: Vec::new(),
            });
        };
        let signature = signing.sign(self.head.sequence, &self.head.hash, now)?;
        let (head, due) = (&mut self.head, CHECKPOINT_EVENTS);
        let old = match now.duration_since(head.checkpoint_time) {
            Ok(age) => age >= CHECKPOINT_PERIOD,
            // It was made when the clock was ahead.
            Err(ahead) => ahead.duration() >= CLOCK_STEP,
        };
        if head.sequence >= head.checkpoint + due || (old && head.sequence > head.checkpoint) {
            head.checkpoint = head.sequence;
            head.checkpoint_time = now;
            let hash = head.hash;
            let sequence = head.sequence;
            rows::insert_checkpoint(&mut self.connection, sequence, &hash, &signature).await?;
        }
        Ok(signature)
    }

    /// Gives everything up. (It may be ended already; then that is all there is.)
    pub(super) async fn rollback(&mut self) {
        let _ = self.execute("ROLLBACK").await;
    }

    pub(super) fn into_connection(self) -> AnyConnection {
        self.connection
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(&mut self.connection).await?;
        Ok(())
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}
