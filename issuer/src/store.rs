//! The system of record: SQLite in the data directory.
//!
//! What it promises:
//! - what a writer was told is committed is on the disk (WAL, `synchronous=FULL`);
//! - there is one writer, so that a decision that a transaction made on what it
//!   read still holds when it commits;
//! - writes that come together share one commit ([`writer`]), so that the cost of
//!   a disk flush is divided and not multiplied;
//! - no other issuer has the data directory open (a lock file).
//!
//! Every SQL text of the issuer is below this module, one constant each, in the
//! dialect that SQLite and PostgreSQL share (DESIGN D7).

pub mod audit;
pub mod authorities;
pub mod directory;
pub mod instances;
pub mod resources;
mod schema;
pub mod settings;
pub mod tokens;
pub mod writer;

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

pub use self::{
    directory::{DataDirectory, DirectoryError},
    writer::{Changes, Tx, Writer},
};

/// Name of the database in the data directory.
pub const FILE: &str = "issuer.db";

/// The store: many readers, one writer.
#[derive(Debug, Clone)]
pub struct Store {
    readers: SqlitePool,
    writer: Writer,
}

impl Store {
    /// Opens (or makes) the database and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let cannot_open = |error: sqlx::Error| StoreError::Open {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let mut connection = options.connect().await.map_err(cannot_open)?;
        schema::migrate(&mut connection, path).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        let last = audit::last_sequence(&mut connection).await?;
        Ok(Self {
            readers,
            writer: Writer::start(connection, last),
        })
    }

    /// Runs `work` in a transaction; the answer comes after the commit. An error
    /// of `work` undoes what it did. See [`writer`].
    pub async fn write<T, E, W>(&self, work: W) -> Result<T, E>
    where
        W: for<'t> FnOnce(&'t mut Tx) -> futures_util::future::BoxFuture<'t, Result<T, E>>
            + Send
            + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.write(work).await
    }

    /// A connection that reads what is committed.
    pub async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// Follows what commits change.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.writer.changes()
    }

    /// Why the last commit failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.writer.trouble()
    }

    /// Finishes the writes under way and closes the database. Later writes fail.
    pub async fn close(&self) {
        // The writer last: the last connection folds the log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Why the store did not do what it was asked. Nothing was changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("the store {path} cannot be opened ({reason}): check the disk and the file's owner")]
    Open {
        /// The database file.
        path: String,
        /// Why.
        reason: String,
    },
    /// It was written by a newer issuer, or its schema was tampered with.
    #[error(
        "the store {path} does not fit this issuer ({reason}): use the version that wrote it, or a newer one"
    )]
    Schema {
        /// The database file.
        path: String,
        /// Why.
        reason: String,
    },
    /// It cannot be read or written now.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What it holds cannot be understood.
    #[error("the store holds a damaged record: {0}")]
    Damaged(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
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
