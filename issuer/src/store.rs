//! The system of record: SQLite in the data directory, or PostgreSQL.
//!
//! What it promises, on both:
//! - what a writer was told is committed is on the disk (SQLite: WAL and
//!   `synchronous=FULL`; PostgreSQL: as its `synchronous_commit` says);
//! - there is one writer at a time, in all issuers that share the store ([`head`]),
//!   so that a decision that a transaction made on what it read still holds when
//!   it commits;
//! - writes that come together share one commit (module `writer`), so that the cost
//!   of a disk flush is divided and not multiplied;
//! - what decisions read is in memory ([`Catalog`]), as of a revision that a
//!   transaction can check, and follows what other issuers commit.
//!
//! A SQLite store belongs to one issuer: the data directory has a lock file.
//!
//! Every SQL text of the issuer is below this module, one constant each, in the
//! dialect that SQLite and PostgreSQL share (DESIGN D7).

pub mod audit;
pub mod authorities;
pub mod backup;
mod database;
pub mod directory;
mod feed;
pub mod head;
pub mod instances;
pub mod resources;
pub mod restore;
mod schema;
pub mod settings;
pub mod tokens;
mod tx;
mod writer;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use identity::TrustDomain;
use sqlx::{Any, AnyPool, any::AnyPoolOptions, pool::PoolConnection};
use tokio::sync::watch;

use self::{
    audit::signing::{HeadSigner, Signing},
    feed::Publisher,
    writer::Writer,
};
pub use self::{
    database::{AddressError, Database, Engine, PostgresAddress},
    directory::{DataDirectory, DirectoryError},
    feed::Changes,
    tx::Tx,
    writer::Failure,
};
use crate::catalog::Catalog;

/// How long readers, and then the writer, may take to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Name of the SQLite database in the data directory.
pub const FILE: &str = "issuer.db";

/// The store: many readers, one writer.
#[derive(Debug, Clone)]
pub struct Store {
    readers: AnyPool,
    writer: Writer,
    publisher: Arc<Publisher>,
    signing: Arc<Mutex<Option<Arc<Signing>>>>,
}

impl Store {
    /// Opens (or makes) the database and brings its schema up to date.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let mut connection = database.connect().await?;
        schema::migrate(&mut connection, database).await?;
        let readers = AnyPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(database.reader_options()?);
        let head = head::read(&mut connection).await?;
        let catalog = feed::load(&mut connection, &head).await?;
        let publisher = Arc::new(Publisher::new(catalog, &head));
        let signing = Arc::default();
        if let Database::Postgres(address) = database {
            let follow = feed::follow(readers.clone(), publisher.clone(), address.clone());
            tokio::spawn(follow);
        }
        Ok(Self {
            writer: Writer::start(
                database.clone(),
                connection,
                publisher.clone(),
                Arc::clone(&signing),
            ),
            readers,
            publisher,
            signing,
        })
    }

    /// Runs `work` in a transaction; the answer comes after the commit. An error
    /// of `work` undoes what it did. Work can be run more than once, of which only
    /// the last counts, so what it moves in it clones for each run. See the module
    /// `writer`.
    pub async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: for<'t> FnMut(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Failure,
    {
        self.writer.write(writer::PATIENCE, work).await
    }

    /// The same for work that takes its time: nobody else writes meanwhile.
    pub(crate) async fn write_long<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: for<'t> FnMut(&'t mut Tx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Failure,
    {
        self.writer
            .write(Duration::from_secs(24 * 3600), work)
            .await
    }

    /// A connection that reads what is committed.
    pub async fn read(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// What decisions read, as of the newest commit that is known here: of this
    /// issuer at once, of another within a second.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.publisher.catalog()
    }

    /// Follows what commits change.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.publisher.changes()
    }

    /// From now on each commit carries a signature over the newest audit event.
    pub fn sign_heads(&self, trust_domain: TrustDomain, signer: Arc<dyn HeadSigner>) {
        let signing = Arc::new(Signing {
            trust_domain,
            signer,
        });
        *self.signing.lock().unwrap_or_else(PoisonError::into_inner) = Some(signing);
    }

    /// Why it does not work now, if it does not: the last commit failed, or the server
    /// does not answer to who only reads.
    pub fn trouble(&self) -> Option<String> {
        self.writer.trouble().or_else(|| self.publisher.trouble())
    }

    /// Finishes the writes under way and closes the database. Later writes fail. A
    /// database that does not answer is left as it is, as if the process were killed.
    pub async fn close(&self) {
        // The writer last: the last connection folds SQLite's log into the file.
        let readers = tokio::time::timeout(CLOSE_PATIENCE, self.readers.close()).await;
        let writer = tokio::time::timeout(CLOSE_PATIENCE, self.writer.close()).await;
        if readers.is_err() || writer.is_err() {
            tracing::warn!("the store did not close in time");
        }
    }
}

/// Why the store did not do what it was asked. Nothing was changed then, as far
/// as is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error(
        "the store {database} cannot be opened ({reason}): check that it is there and who owns it"
    )]
    Open {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
    /// It was written by a newer issuer, or its schema was tampered with.
    #[error(
        "the store {database} does not fit this issuer ({reason}): use the version that wrote it, or a newer one"
    )]
    Schema {
        /// The database, without secrets.
        database: String,
        /// Why.
        reason: String,
    },
    /// It cannot be read or written now.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The database has undone the transaction: the work is to be run again. Only
    /// work under way sees this.
    #[error("the store is unavailable: {0}")]
    Conflict(String),
    /// What it holds cannot be understood.
    #[error("the store holds a damaged record: {0}")]
    Damaged(String),
}

impl StoreError {
    /// As a caller is to see it who cannot run the work again.
    fn for_caller(self) -> Self {
        match self {
            Self::Conflict(why) => Self::Unavailable(why),
            other => other,
        }
    }
}

/// What the database says when a transaction is to be run again (SQLSTATE
/// `serialization_failure` and `deadlock_detected`).
const RUN_AGAIN: [&str; 2] = ["40001", "40P01"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match code {
            Some(code) if RUN_AGAIN.contains(&code.as_ref()) => Self::Conflict(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// The store's numbers are signed.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way; the store never holds a negative one.
pub(crate) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A moment as milliseconds since 1970.
pub(crate) fn to_millis(time: std::time::SystemTime) -> i64 {
    time.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// The other way.
pub(crate) fn from_millis(millis: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_millis(to_u64(millis))
}

#[cfg(test)]
mod tests;
