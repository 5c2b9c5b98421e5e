//! The audit log: rows that are only ever added, numbered without a gap and
//! chained by their hashes ([`crate::audit::chain`]).

pub mod checkpoints;
pub mod cursors;
pub mod offline;
pub mod rows;
pub mod search;
pub mod signing;

use std::time::SystemTime;

use sqlx::AnyConnection;

use super::{StoreError, Tx, head::hash_of, to_i64, to_u64};
use crate::audit::{Event, chain::Hash};

/// Number of the newest event; 0 if there is none.
pub async fn last_sequence(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let (sequence,): (Option<i64>,) = sqlx::query_as("SELECT MAX(sequence) FROM audit_events")
        .fetch_one(connection)
        .await?;
    Ok(to_u64(sequence.unwrap_or(0)))
}

/// The link of an event; `None`: it is not there.
pub async fn link(
    connection: &mut AnyConnection,
    sequence: u64,
) -> Result<Option<Hash>, StoreError> {
    let row = sqlx::query("SELECT hash FROM audit_events WHERE sequence = $1")
        .bind(to_i64(sequence))
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| hash_of(&row, "hash")).transpose()?)
}

/// Adds an event. It is durable when the transaction is, and in the table then.
pub async fn append(tx: &mut Tx, event: &Event, now: SystemTime) -> Result<u64, StoreError> {
    Ok(tx.append(event, now))
}
