//! Audit events as rows, each with its link of the chain ([`crate::audit::chain`]).

use std::{sync::LazyLock, time::SystemTime};

use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::{
    audit::{
        Event,
        chain::{Hash, Record, START},
    },
    store::{
        StoreError,
        head::{Head, HeadSignature},
        to_i64, to_millis, to_u64,
    },
};

/// An event in its place in the chain.
#[derive(Debug, Clone)]
pub struct ChainedEvent {
    /// Its number.
    pub sequence: u64,
    /// Of itself and all before it.
    pub hash: Hash,
    time: i64,
    event: &'static str,
    success: bool,
    index: Index,
    fields: String,
}

/// What events are searched by: copies of fields, in columns of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Field `bot_name`.
    pub bot_name: String,
    /// Field `spiffe_id`.
    pub spiffe_id: String,
    /// Field `serial_number`, or `jti` where there is none.
    pub serial: String,
}

impl Index {
    /// Out of an event's fields.
    pub fn of(text_field: impl Fn(&str) -> String) -> Self {
        let mut serial = text_field("serial_number");
        if serial.is_empty() {
            serial = text_field("jti");
        }
        Self {
            bot_name: text_field("bot_name"),
            spiffe_id: text_field("spiffe_id"),
            serial,
        }
    }

    /// Out of an event's fields as they are stored.
    pub fn of_json(fields: &str) -> Self {
        let fields: Value = serde_json::from_str(fields).unwrap_or_default();
        Self::of(|field| {
            let text = fields.get(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        })
    }
}

/// Puts an event behind the newest.
pub(in crate::store) fn link(head: &Head, event: &Event, now: SystemTime) -> ChainedEvent {
    let fields = event.fields_json();
    let record = Record {
        sequence: head.sequence + 1,
        time_ms: to_millis(now),
        event: event.name().as_str(),
        success: event.is_success(),
        fields: &fields,
    };
    ChainedEvent {
        sequence: record.sequence,
        hash: record.hash(&head.hash),
        time: record.time_ms,
        event: event.name().as_str(),
        success: record.success,
        index: Index::of(|field| event.text_field(field).to_owned()),
        fields,
    }
}

/// At most so many rows are one statement, as a power of two: to find the names of its
/// parameters takes SQLite a time that grows with the square of their number.
const ROWS_MAX: u32 = 4;

/// One statement for each power of two of rows, so that any number of rows is
/// few statements and each text is prepared once.
static INSERTS: LazyLock<Vec<SqlStr>> = LazyLock::new(|| {
    let statement = |power: u32| {
        let rows: Vec<_> = (0..1 << power)
            .map(|row: usize| {
                let places: Vec<_> = (1..=9)
                    .map(|column| format!("${}", row * 9 + column))
                    .collect();
                format!("({})", places.join(", "))
            })
            .collect();
        let text = format!(
            "INSERT INTO audit_events (sequence, time, event, success, bot_name, spiffe_id, serial,
                 fields, hash) VALUES {}",
            rows.join(", ")
        );
        AssertSqlSafe(text).into_sql_str()
    };
    (0..=ROWS_MAX).map(statement).collect()
});

/// Writes events in their order.
pub(in crate::store) async fn insert(
    connection: &mut AnyConnection,
    mut events: &[ChainedEvent],
) -> Result<(), StoreError> {
    while !events.is_empty() {
        let power = events.len().ilog2().min(ROWS_MAX);
        let (now, later) = events.split_at(1 << power);
        let mut insert = sqlx::query(INSERTS[power as usize].clone());
        for event in now {
            insert = insert
                .bind(to_i64(event.sequence))
                .bind(event.time)
                .bind(event.event)
                .bind(i64::from(event.success))
                .bind(event.index.bot_name.as_str())
                .bind(event.index.spiffe_id.as_str())
                .bind(event.index.serial.as_str())
                .bind(event.fields.as_str())
                .bind(event.hash.as_slice());
        }
        insert.execute(&mut *connection).await?;
        events = later;
    }
    Ok(())
}

/// Keeps a signature over an event for good.
pub(in crate::store) async fn insert_checkpoint(
    connection: &mut AnyConnection,
    sequence: u64,
    hash: &Hash,
    signature: &HeadSignature,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_checkpoints (sequence, hash, time, key_id, signature)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sequence) DO NOTHING",
    )
    .bind(to_i64(sequence))
    .bind(hash.as_slice())
    .bind(to_millis(signature.time))
    .bind(signature.key_id.as_str())
    .bind(signature.signature.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Chains the events of a store that had no chain; the newest number and hash.
pub(in crate::store) async fn chain_old_events(
    connection: &mut AnyConnection,
) -> Result<(u64, Hash), StoreError> {
    const PAGE: i64 = 1000;
    let (mut sequence, mut before) = (0, START);
    loop {
        let page: Vec<(i64, i64, String, i64, String)> = sqlx::query_as(
            "SELECT sequence, time, event, success, fields FROM audit_events
             WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        )
        .bind(to_i64(sequence))
        .bind(PAGE)
        .fetch_all(&mut *connection)
        .await?;
        if page.is_empty() {
            return Ok((sequence, before));
        }
        for (number, time, event, success, fields) in page {
            let number = to_u64(number);
            if number != sequence + 1 {
                return Err(StoreError::Damaged(format!(
                    "audit event {} is missing",
                    sequence + 1
                )));
            }
            let record = Record {
                sequence: number,
                time_ms: time,
                event: &event,
                success: success != 0,
                fields: &fields,
            };
            before = record.hash(&before);
            sequence = number;
            sqlx::query("UPDATE audit_events SET hash = $2, serial = $3 WHERE sequence = $1")
                .bind(to_i64(number))
                .bind(before.as_slice())
                .bind(Index::of_json(&fields).serial)
                .execute(&mut *connection)
                .await?;
        }
    }
}
