//! Backups: everything that a store holds, as of one moment, in a form of our own
//! that either engine can write and read. So a backup of a SQLite store can be
//! restored into PostgreSQL, and the other way.
//!
//! A backup is lines of JSON. The first says what it is; then come the tables, each
//! as a line with its name and columns and a line for each row (an array; bytes in
//! hex, absent values `null`); the last has the SHA-256 of all bytes before it.
//!
//! Private keys are in it as the store has them: sealed. The key that opens them is
//! *not* in it. Join tokens that are not used are not in it either, for a restore
//! would make those valid again that were used since.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use aws_lc_rs::digest;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Row, SqlSafeStr, any::AnyRow};

use super::{Database, StoreError, head, settings, to_millis};

/// What the first line says.
pub const FORMAT: &str = "tbot-issuer-backup";
/// The newest version of the form that this issuer writes and reads.
pub const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// When it was made: milliseconds since 1970.
    pub made_ms: i64,
    /// Whose store it is.
    pub trust_domain: String,
    /// Number of the newest audit event.
    pub audit_sequence: u64,
    /// Its link of the chain, hex.
    pub audit_hash: String,
    /// Revision of what decisions read.
    pub revision: u64,
    /// The newest signed checkpoint of the audit trail.
    pub checkpoint: u64,
    /// When that was made: milliseconds since 1970.
    pub checkpoint_ms: i64,
}

/// Begins a table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TableLine {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Trailer {
    /// How many lines there are before this one.
    pub(super) lines: u64,
    /// Of all bytes before this line, hex.
    pub(super) sha256: String,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    Number,
    Bytes,
}

/// A table that is part of a backup.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Holds)],
    /// Whether its rows carry the revision that changed them.
    pub(super) followed: bool,
    /// Which rows, and in which order.
    rest: &'static str,
}

use Holds::{Bytes, Number, Text};

/// In the order in which they are written.
pub(super) const TABLES: [Table; 8] = [
    Table {
        name: "settings",
        columns: &[("key", Text), ("value", Text)],
        followed: true,
        rest: "ORDER BY key",
    },
    Table {
        name: "authorities",
        columns: &[
            ("key_id", Text),
            ("key_use", Text),
            ("state", Text),
            ("certificate", Bytes),
            ("sealed_key", Bytes),
            ("created", Number),
            ("activated", Number),
            ("retired", Number),
            ("not_after", Number),
        ],
        followed: true,
        rest: "ORDER BY key_id",
    },
    Table {
        name: "resources",
        columns: &[
            ("kind", Text),
            ("name", Text),
            ("revision", Number),
            ("content", Bytes),
        ],
        followed: true,
        rest: "ORDER BY kind, name",
    },
    Table {
        name: "tokens",
        columns: &[
            ("hash", Bytes),
            ("name", Text),
            ("bot_name", Text),
            ("labels", Text),
            ("revision", Number),
            ("created", Number),
            ("expires", Number),
            ("used_at", Number),
            ("used_by", Text),
            ("description", Text),
        ],
        followed: false,
        rest: "WHERE used_at IS NOT NULL ORDER BY name",
    },
    Table {
        name: "bot_instances",
        columns: &[
            ("instance_id", Text),
            ("bot_name", Text),
            ("generation", Number),
            ("key_sha256", Bytes),
            ("joined", Number),
            ("renewed", Number),
            ("not_after", Number),
            ("hostname", Text),
            ("agent_version", Text),
            ("join_method", Text),
            ("join_token_name", Text),
            ("newest_seen", Number),
        ],
        followed: true,
        rest: "ORDER BY instance_id",
    },
    Table {
        name: "audit_events",
        columns: &[
            ("sequence", Number),
            ("time", Number),
            ("event", Text),
            ("success", Number),
            ("bot_name", Text),
            ("spiffe_id", Text),
            ("serial", Text),
            ("fields", Text),
            ("hash", Bytes),
        ],
        followed: false,
        rest: "ORDER BY sequence",
    },
    Table {
        name: "audit_checkpoints",
        columns: &[
            ("sequence", Number),
            ("hash", Bytes),
            ("time", Number),
            ("key_id", Text),
            ("signature", Bytes),
        ],
        followed: false,
        rest: "ORDER BY sequence",
    },
    Table {
        name: "audit_cursors",
        columns: &[("sink", Text), ("sequence", Number)],
        followed: false,
        rest: "ORDER BY sink",
    },
];

/// Tables of the schema that are in no backup, and why.
#[cfg(test)]
pub(super) const LEFT_OUT: [(&str, &str); 3] = [
    ("head", "the first line has it"),
    (
        "tombstones",
        "whoever read the old store reads the new one anew",
    ),
    ("_sqlx_migrations", "the new store has its own"),
];

/// Writes a backup of a store. It is not changed; whether an issuer serves it now is
/// to be said.
pub async fn write(
    database: &Database,
    served: bool,
    to: &mut (dyn Write + Send),
    now: SystemTime,
) -> Result<Header, BackupError> {
    let mut connection = match served {
        true => database.connect_beside().await?,
        false => database.connect_offline().await?,
    };
    // All tables as of one moment. It ends with the connection.
    sqlx::query(database.engine().begin_snapshot())
        .execute(&mut connection)
        .await
        .map_err(StoreError::from)?;
    let head = head::read(&mut connection)
        .await
        .map_err(|error| match error {
            StoreError::Unavailable(why) => StoreError::Schema {
                database: database.to_string(),
                reason: format!("{why}; start this version of the issuer on it once"),
            },
            other => other,
        })?;
    let trust_domain = settings::read(&mut connection, settings::TRUST_DOMAIN)
        .await?
        .ok_or(BackupError::Empty)?;
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        made_ms: to_millis(now),
        trust_domain,
        audit_sequence: head.sequence,
        audit_hash: hex::encode(head.hash),
        revision: head.revision,
        checkpoint: head.checkpoint,
        checkpoint_ms: to_millis(head.checkpoint_time),
    };
    let mut lines = Lines {
        to,
        digest: digest::Context::new(&digest::SHA256),
        count: 0,
    };
    lines.write(&header)?;
    for table in &TABLES {
        write_table(&mut connection, table, &mut lines).await?;
    }
    lines.end()?;
    Ok(header)
}

async fn write_table(
    connection: &mut AnyConnection,
    table: &Table,
    lines: &mut Lines<'_>,
) -> Result<(), BackupError> {
    let columns: Vec<&str> = table.columns.iter().map(|(column, _)| *column).collect();
    lines.write(&TableLine {
        table: table.name.to_owned(),
        columns: columns.iter().map(ToString::to_string).collect(),
    })?;
    let (columns, name, rest) = (columns.join(", "), table.name, table.rest);
    let select = AssertSqlSafe(format!("SELECT {columns} FROM {name} {rest}"));
    let mut rows = sqlx::query(select.into_sql_str()).fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(StoreError::from)? {
        let values = table.columns.iter();
        let values: Vec<Value> = values
            .map(|(column, holds)| value(&row, column, *holds))
            .collect::<sqlx::Result<_>>()
            .map_err(StoreError::from)?;
        lines.write(&values)?;
    }
    Ok(())
}

fn value(row: &AnyRow, column: &str, holds: Holds) -> sqlx::Result<Value> {
    Ok(match holds {
        Text => row.try_get::<Option<String>, _>(column)?.into(),
        Number => row.try_get::<Option<i64>, _>(column)?.into(),
        Bytes => {
            let bytes: Option<Vec<u8>> = row.try_get(column)?;
            bytes.map(hex::encode).into()
        }
    })
}

struct Lines<'w> {
    to: &'w mut (dyn Write + Send),
    digest: digest::Context,
    count: u64,
}

impl Lines<'_> {
    fn write(&mut self, line: &impl Serialize) -> Result<(), BackupError> {
        let mut line = serde_json::to_vec(line).map_err(io::Error::from)?;
        line.push(b'\n');
        self.digest.update(&line);
        self.count += 1;
        Ok(self.to.write_all(&line)?)
    }

    fn end(self) -> Result<(), BackupError> {
        let trailer = Trailer {
            lines: self.count,
            sha256: hex::encode(self.digest.finish()),
        };
        let mut line = serde_json::to_vec(&trailer).map_err(io::Error::from)?;
        line.push(b'\n');
        self.to.write_all(&line)?;
        Ok(self.to.flush()?)
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to back up.
    #[error("the store is empty: no issuer has been started on it yet")]
    Empty,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("the backup cannot be written: {0}")]
    Write(#[from] io::Error),
}

#[cfg(test)]
mod tests;
