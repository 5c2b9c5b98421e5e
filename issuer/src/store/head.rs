//! The row `head`: where the store stands.
//!
//! Every transaction that writes updates it first. That makes it the one thing
//! that issuers which share a database wait for, so that there is one writer at a
//! time whatever the engine; and it makes its counters the truth for all of them.

use std::time::SystemTime;

use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use super::{StoreError, from_millis, to_i64, to_millis, to_u64};
use crate::audit::chain::Hash;

/// Where the store stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the newest audit event; 0: none.
    pub sequence: u64,
    /// Its hash; zeros if there is none.
    pub hash: Hash,
    /// Rises by one with each transaction that changes what decisions read.
    pub revision: u64,
    /// Deletions at or before this revision are no longer remembered.
    pub forgotten: u64,
    /// The newest signed checkpoint.
    pub checkpoint: u64,
    /// When it was made.
    pub checkpoint_time: SystemTime,
}

/// The signature over the newest event, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadSignature {
    /// Which key signed; empty: nobody has signed yet.
    pub key_id: String,
    /// When.
    pub time: SystemTime,
    /// Over [`crate::audit::chain::Head::message`].
    pub signature: Vec<u8>,
}

impl FromRow<'_, AnyRow> for Head {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            sequence: to_u64(row.try_get("sequence")?),
            hash: hash_of(row, "hash")?,
            revision: to_u64(row.try_get("revision")?),
            forgotten: to_u64(row.try_get("forgotten")?),
            checkpoint: to_u64(row.try_get("checkpoint")?),
            checkpoint_time: from_millis(row.try_get("checkpoint_time")?),
        })
    }
}

/// A column that is a hash.
pub(super) fn hash_of(row: &AnyRow, column: &str) -> sqlx::Result<Hash> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Hash::try_from(bytes.as_slice()).map_err(|_| {
        let why = format!("{column} has {} bytes, a hash has 32", bytes.len());
        sqlx::Error::Decode(why.into())
    })
}

/// Takes the head for this transaction: others that write wait from here on.
pub(super) async fn take(connection: &mut AnyConnection) -> Result<Head, StoreError> {
    sqlx::query_as(
        "UPDATE head SET revision = revision WHERE id = 1
         RETURNING sequence, hash, revision, forgotten, checkpoint, checkpoint_time",
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::Damaged("it has lost its head".to_owned()))
}

/// Reads it as committed.
pub async fn read(connection: &mut AnyConnection) -> Result<Head, StoreError> {
    sqlx::query_as(
        "SELECT sequence, hash, revision, forgotten, checkpoint, checkpoint_time
         FROM head WHERE id = 1",
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::Damaged("it has lost its head".to_owned()))
}

/// Reads it as committed, with the signature over it.
pub async fn read_signed(
    connection: &mut AnyConnection,
) -> Result<(Head, HeadSignature), StoreError> {
    let row = sqlx::query(
        "SELECT sequence, hash, revision, forgotten, checkpoint, checkpoint_time, key_id, signed,
             signature FROM head WHERE id = 1",
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| StoreError::Damaged("it has lost its head".to_owned()))?;
    let signature = HeadSignature {
        key_id: row.try_get("key_id")?,
        time: from_millis(row.try_get("signed")?),
        signature: row.try_get("signature")?,
    };
    Ok((Head::from_row(&row)?, signature))
}

/// Writes it back.
pub(super) async fn write(
    connection: &mut AnyConnection,
    head: &Head,
    signature: &HeadSignature,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE head SET sequence = $1, hash = $2, revision = $3, forgotten = $4,
             checkpoint = $5, checkpoint_time = $6, key_id = $7, signed = $8, signature = $9
         WHERE id = 1",
    )
    .bind(to_i64(head.sequence))
    .bind(head.hash.as_slice())
    .bind(to_i64(head.revision))
    .bind(to_i64(head.forgotten))
    .bind(to_i64(head.checkpoint))
    .bind(to_millis(head.checkpoint_time))
    .bind(signature.key_id.as_str())
    .bind(to_millis(signature.time))
    .bind(signature.signature.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}
