//! Reads records by what people ask for.

use std::time::SystemTime;

use sqlx::{AnyConnection, AssertSqlSafe, FromRow, Row, any::AnyRow};

use crate::{
    audit::lines::Recorded,
    store::{StoreError, head::hash_of, to_i64, to_millis, to_u64},
};

/// Which records to read.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Up to this number; `None`: no bound.
    pub to: Option<u64>,
    /// Only of these names; one that ends in `*` is a prefix. Empty: all.
    pub events: Vec<String>,
    /// Only of this bot; empty: all.
    pub bot_name: String,
    /// Only of this SPIFFE ID; empty: all.
    pub spiffe_id: String,
    /// Only of the document with this serial number or `jti`, see [`serial`]; empty:
    /// all.
    pub serial: String,
    /// Only at or after this moment.
    pub after: Option<SystemTime>,
    /// Only before this moment.
    pub before: Option<SystemTime>,
    /// Only what was granted (or only what was refused).
    pub success: Option<bool>,
}

/// A serial number as people and other programs write it (colons between the bytes,
/// capitals), in the form in which it is stored; a `jti` stays as it is.
pub fn serial(text: &str) -> String {
    let bare: String = text.chars().filter(|character| *character != ':').collect();
    let is_hex = bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex {
        true => bare.to_ascii_lowercase(),
        false => text.to_owned(),
    }
}

/// Reads up to `limit` records from the number `from` on that pass the filter, in
/// order.
pub async fn read(
    connection: &mut AnyConnection,
    filter: &Filter,
    from: u64,
    limit: u32,
) -> Result<Vec<Recorded>, StoreError> {
    let select = Select::of(filter, from, limit);
    let mut query = sqlx::query_as(AssertSqlSafe(select.text));
    for value in select.values {
        query = match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
        };
    }
    Ok(query.fetch_all(connection).await?)
}

enum Value {
    Number(i64),
    Text(String),
}

/// The statement: only fixed text and the numbers of its values.
struct Select {
    text: String,
    values: Vec<Value>,
}

impl Select {
    fn of(filter: &Filter, from: u64, limit: u32) -> Self {
        let mut select = Self {
            text: "SELECT sequence, time, event, success, fields, hash FROM audit_events \
                   WHERE sequence >= $1"
                .to_owned(),
            values: vec![Value::Number(to_i64(from))],
        };
        if let Some(to) = filter.to {
            select.and("sequence <=", Value::Number(to_i64(to)));
        }
        if !filter.bot_name.is_empty() {
            select.and("bot_name =", Value::Text(filter.bot_name.clone()));
        }
        if !filter.spiffe_id.is_empty() {
            select.and("spiffe_id =", Value::Text(filter.spiffe_id.clone()));
        }
        if !filter.serial.is_empty() {
            // The index has only rows with a serial number.
            select.text.push_str(" AND serial <> ''");
            select.and("serial =", Value::Text(serial(&filter.serial)));
        }
        if let Some(after) = filter.after {
            select.and("time >=", Value::Number(to_millis(after)));
        }
        if let Some(before) = filter.before {
            select.and("time <", Value::Number(to_millis(before)));
        }
        if let Some(success) = filter.success {
            select.and("success =", Value::Number(i64::from(success)));
        }
        select.and_any_of(&filter.events);
        let place = select.place(Value::Number(i64::from(limit)));
        select.text.push_str(" ORDER BY sequence LIMIT ");
        select.text.push_str(&place);
        select
    }

    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn and(&mut self, left: &str, right: Value) {
        let place = self.place(right);
        self.text.push_str(&format!(" AND {left} {place}"));
    }

    fn and_any_of(&mut self, events: &[String]) {
        if events.is_empty() {
            return;
        }
        let alternatives: Vec<_> = events
            .iter()
            .map(|event| match event.strip_suffix('*') {
                None => format!("event = {}", self.place(Value::Text(event.clone()))),
                Some(prefix) => {
                    let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
                    let length = self.place(Value::Number(length));
                    let prefix = self.place(Value::Text(prefix.to_owned()));
                    format!("substr(event, 1, CAST({length} AS INTEGER)) = {prefix}")
                }
            })
            .collect();
        let alternatives = alternatives.join(" OR ");
        self.text.push_str(&format!(" AND ({alternatives})"));
    }
}

impl FromRow<'_, AnyRow> for Recorded {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            sequence: to_u64(row.try_get("sequence")?),
            time_ms: row.try_get("time")?,
            event: row.try_get("event")?,
            success: row.try_get::<i64, _>("success")? != 0,
            fields: row.try_get("fields")?,
            hash: hash_of(row, "hash")?,
        })
    }
}

#[cfg(test)]
mod tests;
