//! The audit log: rows that are only ever added, numbered without a gap and
//! chained by their hashes ([`crate::audit::chain`]).

pub mod rows;
pub mod signing;

use std::time::SystemTime;

use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use super::{StoreError, Tx, from_millis, to_i64, to_u64};
use crate::audit::Event;

/// An event as it is stored.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Rises by one with each event, from 1.
    pub sequence: u64,
    /// When it was recorded.
    pub time: SystemTime,
    /// Its name.
    pub event: String,
    /// Whether what was asked was granted.
    pub success: bool,
    /// A JSON object.
    pub fields: String,
}

impl FromRow<'_, AnyRow> for StoredEvent {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            sequence: to_u64(row.try_get("sequence")?),
            time: from_millis(row.try_get("time")?),
            event: row.try_get("event")?,
            success: row.try_get::<i64, _>("success")? != 0,
            fields: row.try_get("fields")?,
        })
    }
}

/// Number of the newest event; 0 if there is none.
pub async fn last_sequence(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let (sequence,): (Option<i64>,) = sqlx::query_as("SELECT MAX(sequence) FROM audit_events")
        .fetch_one(connection)
        .await?;
    Ok(to_u64(sequence.unwrap_or(0)))
}

/// Adds an event. It is durable when the transaction is, and in the table then.
pub async fn append(tx: &mut Tx, event: &Event, now: SystemTime) -> Result<u64, StoreError> {
    Ok(tx.append(event, now))
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only of these names; empty: all.
    pub events: Vec<String>,
    /// Only of this bot; empty: all.
    pub bot_name: String,
    /// Only of this SPIFFE ID; empty: all.
    pub spiffe_id: String,
}

/// Reads up to `limit` events from `from` on that pass the filter, in order, and
/// the number to go on from.
pub async fn read(
    connection: &mut AnyConnection,
    filter: &Filter,
    from: u64,
    limit: u32,
) -> Result<(Vec<StoredEvent>, u64), StoreError> {
    let rows: Vec<StoredEvent> = sqlx::query_as(
        "SELECT sequence, time, event, success, fields FROM audit_events
         WHERE sequence >= $1 AND ($2 = '' OR bot_name = $2) AND ($3 = '' OR spiffe_id = $3)
         ORDER BY sequence LIMIT $4",
    )
    .bind(to_i64(from))
    .bind(filter.bot_name.as_str())
    .bind(filter.spiffe_id.as_str())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let next = rows.last().map_or(from, |row| row.sequence + 1);
    let wanted = |row: &StoredEvent| filter.events.is_empty() || filter.events.contains(&row.event);
    Ok((rows.into_iter().filter(wanted).collect(), next))
}
