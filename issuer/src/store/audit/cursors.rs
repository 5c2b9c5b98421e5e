//! How far the sinks of the trail are.

use sqlx::AnyConnection;

use crate::store::{StoreError, Tx, to_i64, to_u64};

/// Number of the newest record that this sink has; 0: none.
pub async fn read(connection: &mut AnyConnection, sink: &str) -> Result<u64, StoreError> {
    let row: Option<(i64,)> = sqlx::query_as("SELECT sequence FROM audit_cursors WHERE sink = $1")
        .bind(sink)
        .fetch_optional(connection)
        .await?;
    Ok(row.map_or(0, |(sequence,)| to_u64(sequence)))
}

/// Moves it on; never back. No decision reads it: the store's revision stays.
pub async fn advance(tx: &mut Tx, sink: &str, sequence: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_cursors (sink, sequence) VALUES ($1, $2)
         ON CONFLICT (sink) DO UPDATE SET sequence = excluded.sequence
         WHERE audit_cursors.sequence < excluded.sequence",
    )
    .bind(sink)
    .bind(to_i64(sequence))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}
