//! Puts a backup ([`super::backup`]) into an empty store: all of it, or nothing.
//!
//! The store goes on from where the backup was made, so some things are as they were
//! then. The trust bundle's sequence is raised past every number that the lost part
//! could have reached (TB-03); who holds a generation that is newer than the backup
//! is refused until it joins again; what was locked since is not locked.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use serde_json::Value;
use sqlx::{Any, AssertSqlSafe, SqlSafeStr, SqlStr, any::AnyArguments, query::Query};

use super::{
    Failure, Store, StoreError, Tx, audit,
    backup::{FORMAT, Header, Holds, TABLES, Table, TableLine, Trailer, VERSION},
    from_millis, settings, to_i64, to_millis,
};
use crate::{
    audit::{
        Event, EventName,
        chain::{Hash, Record, START},
    },
    authority::rfc3339,
};

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What the backup says of itself.
    pub header: Header,
    /// The trust bundle's sequence from now on.
    pub bundle_sequence: u64,
    /// Rows, without audit events.
    pub rows: u64,
}

/// Restores the backup in `file` into `store`, which must be empty. `user` is
/// recorded as who did it.
pub async fn restore(
    store: &Store,
    file: &Path,
    user: &str,
    now: SystemTime,
) -> Result<Restored, RestoreError> {
    let header = check(file)?;
    let (file, user) = (file.to_owned(), user.to_owned());
    store
        .write_long(move |tx| {
            let (file, user, header) = (file.clone(), user.clone(), header.clone());
            Box::pin(async move { restore_within(tx, &file, header, &user, now).await })
        })
        .await
}

/// Reads the file once: it is whole, and a backup that this issuer understands.
fn check(file: &Path) -> Result<Header, RestoreError> {
    let mut lines = Lines::open(file)?;
    let first = lines.next()?.unwrap_or_default();
    let header: Header =
        serde_json::from_str(&first).map_err(|_| lines.damaged("it does not begin as a backup"))?;
    if header.format != FORMAT {
        return Err(lines.damaged("it does not begin as a backup"));
    }
    if header.version > VERSION {
        return Err(RestoreError::Newer {
            file: file.to_owned(),
            version: header.version,
        });
    }
    loop {
        let (count, so_far) = (lines.count, lines.digest.clone());
        let Some(line) = lines.next()? else {
            return Err(lines.damaged("its end is missing"));
        };
        let Ok(trailer) = serde_json::from_str::<Trailer>(&line) else {
            continue;
        };
        if trailer.lines != count || trailer.sha256 != hex::encode(so_far.finish()) {
            return Err(lines.damaged("its SHA-256 is not that of its content"));
        }
        return match lines.next()? {
            None => Ok(header),
            Some(_) => Err(lines.damaged("something follows its end")),
        };
    }
}

async fn restore_within(
    tx: &mut Tx,
    file: &Path,
    header: Header,
    user: &str,
    now: SystemTime,
) -> Result<Restored, RestoreError> {
    let founded = settings::read(tx.connection().await?, settings::TRUST_DOMAIN).await?;
    if founded.is_some() || tx.audit_sequence() > 0 {
        return Err(RestoreError::NotEmpty {
            trust_domain: founded.unwrap_or_default(),
        });
    }
    let changed = tx.continue_from(&header)?;
    let mut lines = Lines::open(file)?;
    lines.next()?;
    let mut into: Option<Into> = None;
    let mut chain = Chain::default();
    let mut rows = 0;
    while let Some(line) = lines.next()? {
        if line.starts_with('{') {
            if let Ok(begin) = serde_json::from_str::<TableLine>(&line) {
                into = Some(Into::new(&begin, &lines)?);
            }
            continue;
        }
        let row: Vec<Value> =
            serde_json::from_str(&line).map_err(|_| lines.damaged("a row is no row"))?;
        let into = into
            .as_ref()
            .ok_or_else(|| lines.damaged("a row is in no table"))?;
        if row.len() != into.columns.len() {
            return Err(lines.damaged("a row has not the columns of its table"));
        }
        if into.table.name == "audit_events" {
            chain.check(into, &row, &lines)?;
        } else {
            rows += 1;
        }
        into.insert(tx, &row, changed, &lines).await?;
    }
    if chain.sequence != header.audit_sequence || hex::encode(chain.hash) != header.audit_hash {
        return Err(lines.damaged("its audit trail does not end as its first line says"));
    }
    let bundle_sequence = raise_sequence(tx, now).await?;
    let event = Event::success(EventName::StoreRestore)
        .with("backup_made", rfc3339(from_millis(header.made_ms)))
        .with("backup_audit_sequence", header.audit_sequence)
        .with("bundle_sequence", bundle_sequence)
        .with("user", user);
    audit::append(tx, &event, now).await?;
    Ok(Restored {
        header,
        bundle_sequence,
        rows,
    })
}

/// Past what the store that was lost can have counted to since: it began at the
/// seconds since 1970 and rises by one with each change of a key.
async fn raise_sequence(tx: &mut Tx, now: SystemTime) -> Result<u64, StoreError> {
    let connection = tx.connection().await?;
    let stored = settings::read_number(connection, settings::BUNDLE_SEQUENCE).await?;
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let sequence = stored.max(seconds) + 1;
    settings::write(tx, settings::BUNDLE_SEQUENCE, &sequence.to_string()).await?;
    Ok(sequence)
}

/// The table whose rows come, and how they are inserted.
struct Into {
    table: &'static Table,
    columns: Vec<(String, Holds)>,
    sql: SqlStr,
}

impl Into {
    fn new(begin: &TableLine, lines: &Lines) -> Result<Self, RestoreError> {
        let known = TABLES.iter().find(|table| table.name == begin.table);
        let table = known.ok_or_else(|| lines.damaged("it has a table that is not known"))?;
        let mut columns = Vec::with_capacity(begin.columns.len());
        for name in &begin.columns {
            let known = table.columns.iter().find(|(column, _)| column == name);
            let (_, holds) =
                known.ok_or_else(|| lines.damaged("it has a column that is not known"))?;
            columns.push((name.clone(), *holds));
        }
        // Only names of our own get here.
        let mut names = begin.columns.clone();
        if table.followed {
            names.push("changed".to_owned());
        }
        let places: Vec<_> = (1..=names.len()).map(|place| format!("${place}")).collect();
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            table.name,
            names.join(", "),
            places.join(", ")
        );
        Ok(Self {
            table,
            columns,
            sql: AssertSqlSafe(sql).into_sql_str(),
        })
    }

    async fn insert(
        &self,
        tx: &mut Tx,
        row: &[Value],
        changed: u64,
        lines: &Lines,
    ) -> Result<(), RestoreError> {
        let mut insert = sqlx::query(self.sql.clone());
        for ((_, holds), value) in self.columns.iter().zip(row) {
            insert = bind(insert, *holds, value)
                .ok_or_else(|| lines.damaged("a value is not of its column's type"))?;
        }
        if self.table.followed {
            insert = insert.bind(to_i64(changed));
        }
        let done = insert.execute(tx.connection().await?).await;
        done.map_err(StoreError::from)?;
        Ok(())
    }

    fn text<'r>(&self, row: &'r [Value], column: &str) -> &'r str {
        self.value(row, column)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn number(&self, row: &[Value], column: &str) -> i64 {
        self.value(row, column)
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }

    fn value<'r>(&self, row: &'r [Value], column: &str) -> Option<&'r Value> {
        row.get(self.columns.iter().position(|(name, _)| name == column)?)
    }
}

type Insert = Query<'static, Any, AnyArguments>;

fn bind(insert: Insert, holds: Holds, value: &Value) -> Option<Insert> {
    Some(match (holds, value) {
        (Holds::Text, Value::Null) => insert.bind(None::<String>),
        (Holds::Number, Value::Null) => insert.bind(None::<i64>),
        (Holds::Bytes, Value::Null) => insert.bind(None::<Vec<u8>>),
        (Holds::Text, value) => insert.bind(value.as_str()?.to_owned()),
        (Holds::Number, value) => insert.bind(value.as_i64()?),
        (Holds::Bytes, value) => insert.bind(hex::decode(value.as_str()?).ok()?),
    })
}

/// Follows the audit trail as it comes.
struct Chain {
    sequence: u64,
    hash: Hash,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: START,
        }
    }
}

impl Chain {
    fn check(&mut self, into: &Into, row: &[Value], lines: &Lines) -> Result<(), RestoreError> {
        self.sequence += 1;
        let record = Record {
            sequence: self.sequence,
            time_ms: into.number(row, "time"),
            event: into.text(row, "event"),
            success: into.number(row, "success") != 0,
            fields: into.text(row, "fields"),
        };
        self.hash = record.hash(&self.hash);
        let fits = into.number(row, "sequence") == to_i64(self.sequence)
            && into.text(row, "hash") == hex::encode(self.hash);
        match fits {
            true => Ok(()),
            false => {
                let why = format!("its audit trail is broken at event {}", self.sequence);
                Err(lines.damaged(&why))
            }
        }
    }
}

/// A file, line by line, hashed on the way.
struct Lines {
    file: PathBuf,
    read: BufReader<File>,
    digest: digest::Context,
    count: u64,
}

impl Lines {
    fn open(file: &Path) -> Result<Self, RestoreError> {
        let read = File::open(file).map_err(|error| RestoreError::Read {
            file: file.to_owned(),
            error,
        })?;
        Ok(Self {
            file: file.to_owned(),
            read: BufReader::new(read),
            digest: digest::Context::new(&digest::SHA256),
            count: 0,
        })
    }

    fn next(&mut self) -> Result<Option<String>, RestoreError> {
        let mut line = String::new();
        let read = self.read.read_line(&mut line);
        let length = read.map_err(|error| RestoreError::Read {
            file: self.file.clone(),
            error,
        })?;
        if length == 0 {
            return Ok(None);
        }
        self.digest.update(line.as_bytes());
        self.count += 1;
        Ok(Some(line))
    }

    fn damaged(&self, why: &str) -> RestoreError {
        RestoreError::Damaged {
            file: self.file.clone(),
            line: self.count,
            why: why.to_owned(),
        }
    }
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store holds something.
    #[error(
        "the store is not empty (it is of the trust domain {trust_domain:?}): a backup is restored into an empty one, choose another --data-dir or database"
    )]
    NotEmpty {
        /// Whose it is.
        trust_domain: String,
    },
    /// The file cannot be read.
    #[error("the backup {file:?} cannot be read: {error}")]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not a whole backup.
    #[error("the backup {file:?} is damaged at line {line}: {why}: use another one")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A newer issuer has written it.
    #[error(
        "the backup {file:?} is of version {version}: use the issuer that wrote it, or a newer one"
    )]
    Newer {
        /// Which file.
        file: PathBuf,
        /// What it says.
        version: u32,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure for RestoreError {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What the header says of the moment of its making.
impl Header {
    /// The link of the newest audit event.
    pub(super) fn hash(&self) -> Option<Hash> {
        let bytes = hex::decode(&self.audit_hash).ok()?;
        Hash::try_from(bytes.as_slice()).ok()
    }

    /// How old it is.
    pub fn age(&self, now: SystemTime) -> Duration {
        let age = to_millis(now).saturating_sub(self.made_ms);
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}
