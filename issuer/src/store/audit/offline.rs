//! Reads the trail of a store that need not be served by anybody, as of one moment.
//! Nothing is written, not even beside the database.

use identity::Jwk;
use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use super::{checkpoints, rows::Index};
use crate::{
    audit::{
        chain::{Checkpoint, Hash, START},
        lines::Recorded,
    },
    store::{Database, StoreError, to_i64},
};

/// Records that are read at once.
const PAGE: u32 = 1000;

/// An open snapshot.
#[derive(Debug)]
pub struct Offline {
    connection: AnyConnection,
}

impl Offline {
    /// Opens a store for reading only.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let mut connection = database.connect_offline().await?;
        sqlx::query(database.engine().begin_snapshot())
            .execute(&mut connection)
            .await?;
        Ok(Self { connection })
    }

    /// See [`checkpoints::newest`].
    pub async fn head(&mut self) -> Result<(u64, Option<Checkpoint>), StoreError> {
        checkpoints::newest(&mut self.connection).await
    }

    /// See [`checkpoints::keys`].
    pub async fn keys(&mut self) -> Result<Vec<Jwk>, StoreError> {
        checkpoints::keys(&mut self.connection).await
    }

    /// The kept checkpoints of these records, in order, as many as are read at once.
    pub async fn checkpoints(&mut self, from: u64, to: u64) -> Result<Vec<Checkpoint>, StoreError> {
        checkpoints::read(&mut self.connection, from, to, PAGE).await
    }

    /// The link of a record; of 0 that before all.
    pub async fn link(&mut self, sequence: u64) -> Result<Hash, StoreError> {
        if sequence == 0 {
            return Ok(START);
        }
        let link = super::link(&mut self.connection, sequence).await?;
        link.ok_or_else(|| StoreError::Damaged(format!("audit record {sequence} is missing")))
    }

    /// The next records, each with whether searches find it by what it says.
    pub async fn page(&mut self, from: u64, to: u64) -> Result<Vec<(Recorded, bool)>, StoreError> {
        let rows: Vec<Indexed> = sqlx::query_as(
            "SELECT sequence, time, event, success, fields, hash, bot_name, spiffe_id, serial
             FROM audit_events WHERE sequence >= $1 AND sequence <= $2 ORDER BY sequence LIMIT $3",
        )
        .bind(to_i64(from))
        .bind(to_i64(to))
        .bind(i64::from(PAGE))
        .fetch_all(&mut self.connection)
        .await?;
        let told = |Indexed { record, index }: Indexed| {
            let is_found = index == Index::of_json(&record.fields);
            (record, is_found)
        };
        Ok(rows.into_iter().map(told).collect())
    }
}

struct Indexed {
    record: Recorded,
    index: Index,
}

impl FromRow<'_, AnyRow> for Indexed {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            record: Recorded::from_row(row)?,
            index: Index {
                bot_name: row.try_get("bot_name")?,
                spiffe_id: row.try_get("spiffe_id")?,
                serial: row.try_get("serial")?,
            },
        })
    }
}
