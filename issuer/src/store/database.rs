//! Which database holds the store, and how it is opened.
//!
//! The address of a PostgreSQL database may hold a password. It is in no `Debug`,
//! log or error of this module: only host, port and database name are told.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{AnyConnection, ConnectOptions, any::AnyConnectOptions};

use super::StoreError;

/// How long a connection to a database server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// One file, one issuer.
    Sqlite,
    /// A server, shared by issuers. (What speaks its protocol serves as well.)
    Postgres,
}

impl Engine {
    /// How a transaction that writes begins. On PostgreSQL the row `head` is what
    /// writers wait for, whatever the isolation.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// What the connection that writes is set to, so that what is committed is on the
    /// disk; and that an issuer that stops in a transaction (a frozen machine) does not
    /// stop those that wait for its end.
    fn writer_settings(self) -> &'static [&'static str] {
        match self {
            // What a statement may have to undo is kept in memory, not in a file each time;
            // and the log, up to 16 MiB, goes into the file when enough came together that
            // pages were written more than once: until then each commit is one flush.
            Self::Sqlite => &[
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA temp_store = MEMORY",
                "PRAGMA cache_size = -16384",
                "PRAGMA wal_autocheckpoint = 4000",
            ],
            Self::Postgres => &[
                "SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off'",
                "SET idle_in_transaction_session_timeout = '5s'",
            ],
        }
    }

    /// How a transaction begins that reads several tables as of one moment.
    pub(super) fn begin_snapshot(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// SQLite, in this file.
    Sqlite {
        /// The file; its directory exists.
        path: PathBuf,
    },
    /// PostgreSQL.
    Postgres(PostgresAddress),
}

/// Where a PostgreSQL database is: `postgres://user@host:port/name?sslmode=…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    url: String,
    told: String,
}

impl Database {
    /// A file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self::Sqlite { path: path.into() }
    }

    /// A server.
    pub fn postgres(url: &str) -> Result<Self, AddressError> {
        Ok(Self::Postgres(PostgresAddress::parse(url)?))
    }

    /// Which engine.
    pub fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    fn options(&self, access: Access) -> Result<AnyConnectOptions, StoreError> {
        // Once for the process; more often does nothing.
        sqlx::any::install_default_drivers();
        let url = match self {
            Self::Sqlite { path } => {
                sqlite_url(path, access).map_err(|why| self.cannot_open(why))?
            }
            Self::Postgres(address) => address.url.clone(),
        };
        let options = AnyConnectOptions::from_str(&url)
            .map_err(|_| self.cannot_open("its address is malformed".to_owned()))?;
        Ok(options.disable_statement_logging())
    }

    /// What a pool of readers is made from.
    pub(super) fn reader_options(&self) -> Result<AnyConnectOptions, StoreError> {
        self.options(Access::Read)
    }

    /// Opens a connection that reads a store which nobody need serve. Nothing is written,
    /// not even beside a file.
    pub(super) async fn connect_offline(&self) -> Result<AnyConnection, StoreError> {
        self.connect_for(Access::Offline).await
    }

    /// Opens a connection that reads a store beside the issuer that serves it.
    pub(super) async fn connect_beside(&self) -> Result<AnyConnection, StoreError> {
        self.connect_for(Access::Read).await
    }

    async fn connect_for(&self, access: Access) -> Result<AnyConnection, StoreError> {
        let connect = async {
            let connected = self.options(access)?.connect().await;
            connected.map_err(|error| self.cannot_open(error.to_string()))
        };
        self.in_time(connect).await
    }

    async fn in_time<T>(
        &self,
        connect: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let connected = tokio::time::timeout(CONNECT, connect).await;
        connected.map_err(|_| self.cannot_open(format!("no answer within {CONNECT:?}")))?
    }

    /// Opens the connection that writes, making the file if there is none.
    pub(super) async fn connect(&self) -> Result<AnyConnection, StoreError> {
        let mut connection = self.connect_for(Access::Write).await?;
        self.in_time(self.set_up(&mut connection)).await?;
        Ok(connection)
    }

    async fn set_up(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        for setting in self.engine().writer_settings() {
            match sqlx::query(*setting).execute(&mut *connection).await {
                Ok(_) => {}
                // What speaks PostgreSQL's protocol need not have all its settings.
                Err(sqlx::Error::Database(error)) if self.engine() == Engine::Postgres => {
                    tracing::debug!(%error, setting, "the database does not know a setting");
                }
                Err(error) => return Err(self.cannot_open(error.to_string())),
            }
        }
        Ok(())
    }

    pub(super) fn cannot_open(&self, reason: String) -> StoreError {
        StoreError::Open {
            database: self.to_string(),
            reason,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "{}", path.display()),
            Self::Postgres(address) => f.write_str(&address.told),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    /// Without an issuer at work.
    Offline,
    Write,
}

/// Whether there are commits that are not in the file yet.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

fn sqlite_url(path: &Path, access: Access) -> Result<String, String> {
    // An address is normalised (`..` falls away), a path is not: so it is made
    // free of such parts first.
    let name = path.file_name().ok_or("it names no file")?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let path = parent
        .canonicalize()
        .map_err(|error| error.to_string())?
        .join(name);
    let text = path.to_str().ok_or("its path is not UTF-8")?;
    let mut url = "sqlite://".to_owned();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url.push_str(match access {
        Access::Read => "?mode=ro",
        // With a log beside it, it is read through that, for which it must be shared.
        Access::Offline if has_log(&path) => "?mode=ro",
        Access::Offline => "?mode=ro&immutable=true",
        Access::Write => "?mode=rwc",
    });
    Ok(url)
}

/// What the part of the address after `?` may hold, as PostgreSQL's own clients
/// name it.
const PARAMETERS: [&str; 12] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl PostgresAddress {
    /// Checks an address. What is wrong is told without the address.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| AddressError::new("it does not begin with postgres://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = place.split_once('/').unwrap_or((place, ""));
        // A `/`, `?` or `#` in a password breaks it apart: the rest looks like a place.
        if name.contains('@') || query.contains('@') || rest.contains('#') {
            let why = "it is no URL (escape special characters with %)";
            return Err(AddressError::new(why));
        }
        let mut socket = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !PARAMETERS.contains(&key) {
                // Neither key nor value: a `?` in a password makes its end look so.
                let known = PARAMETERS.join(", ");
                let why = format!("it has an unknown parameter; those known are {known}");
                return Err(AddressError(why));
            }
            if key == "host" {
                socket = Some(value);
            }
        }
        // A password may hold an `@` that was not escaped: the last one counts.
        let (user, server) = match authority.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, authority),
        };
        // A URL has a host, even if the parameter `host` is the one that counts.
        let host = match server {
            "" => "localhost",
            server => server,
        };
        let user = user.map_or(String::new(), |user| format!("{user}@"));
        let address = Self {
            url: format!("postgres://{user}{host}/{name}?{query}"),
            told: format!("PostgreSQL {name:?} at {}", socket.unwrap_or(host)),
        };
        AnyConnectOptions::from_str(&address.url)
            .map_err(|_| AddressError::new("it is no URL (escape special characters with %)"))?;
        Ok(address)
    }

    /// The whole of it: a secret.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresAddress({})", self.told)
    }
}

/// Why an address of a database is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of the database is not usable: {0}: write postgres://USER@HOST:PORT/NAME, or postgres://USER@/NAME?host=/SOCKET/DIRECTORY"
)]
pub struct AddressError(String);

impl AddressError {
    fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

#[cfg(test)]
mod tests;
