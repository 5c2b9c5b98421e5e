//! The trail as JSON lines: what is exported, searched for with `-o json`, written by
//! the sinks, and read again to be verified elsewhere.
//!
//! One object a line, of five sorts, told apart by their first key: a record
//! (`sequence`), a `checkpoint`, the public half of an `audit_key`, the head of an
//! `export`, and what is in no trail (`not_durable`). The fields of a record stand byte
//! for byte as they were hashed, so that a line proves as much as the row that it came
//! from. Its `code` is not hashed; see [`check_code`].

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use identity::Jwk;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

use super::{
    chain::{Checkpoint, Hash, Head, Record},
    codes,
};

const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// Of a time that no calendar holds: such a record was tampered with, and must still
/// be read to be named.
const UNREPRESENTABLE: &str = "ms:";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// What follows: always the first line of an export.
    Export(Export),
    /// The public half of an audit key.
    Key(Jwk),
    /// A record.
    Record(Recorded),
    /// A signed head of the trail.
    Checkpoint(Checkpoint),
    /// What was granted although the store could not record it.
    NotDurable(NotDurable),
}

/// A decision that is in no trail; see [`super::best_effort`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDurable {
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// Name of the event.
    pub event: String,
    /// Whether what was asked was granted.
    pub success: bool,
    /// A JSON object.
    pub fields: String,
}

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Whose trail it is.
    pub trust_domain: String,
    /// Number of the first record.
    pub first: u64,
    /// Link of the record before it.
    pub previous: Hash,
    /// Number of the newest record when it was exported.
    pub last: u64,
}

/// A record, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// From 1, without a gap.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// Name of the event.
    pub event: String,
    /// Whether what was asked was granted.
    pub success: bool,
    /// A JSON object, byte for byte.
    pub fields: String,
    /// Its link.
    pub hash: Hash,
}

impl Recorded {
    /// As its hash sees it.
    pub fn record(&self) -> Record<'_> {
        Record {
            sequence: self.sequence,
            time_ms: self.time_ms,
            event: &self.event,
            success: self.success,
            fields: &self.fields,
        }
    }
}

/// `2026-11-21T20:53:01.123Z`.
pub fn time_text(time_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(MILLISECONDS).ok())
        .unwrap_or_else(|| format!("{UNREPRESENTABLE}{time_ms}"))
}

/// The other way.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Some(milliseconds) = text.strip_prefix(UNREPRESENTABLE) {
        return milliseconds.parse().ok();
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

impl Line {
    /// As text, without the end of the line.
    pub fn to_json(&self) -> String {
        match self {
            Self::Record(record) => record_json(record),
            Self::NotDurable(told) => format!(
                r#"{{"not_durable":true,{}}}"#,
                told_json(told.time_ms, &told.event, told.success, &told.fields)
            ),
            Self::Export(export) => json!({ "export": {
                "version": 1,
                "trust_domain": export.trust_domain,
                "first": export.first,
                "previous_hash": hex::encode(export.previous),
                "last": export.last,
            }})
            .to_string(),
            Self::Key(key) => {
                json!({ "audit_key": key.with_key_id(&key.thumbprint()) }).to_string()
            }
            Self::Checkpoint(checkpoint) => json!({ "checkpoint": {
                "trust_domain": checkpoint.head.trust_domain,
                "sequence": checkpoint.head.sequence,
                "hash": hex::encode(checkpoint.head.hash),
                "time": time_text(checkpoint.head.time_ms),
                "key_id": checkpoint.key_id,
                "signature": BASE64.encode(&checkpoint.signature),
            }})
            .to_string(),
        }
    }

    /// Reads a line; why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let line: AnyLine<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match line {
            AnyLine {
                not_durable: Some(true),
                time: Some(time),
                event: Some(event),
                success: Some(success),
                fields: Some(fields),
                ..
            } => Ok(Self::NotDurable(NotDurable {
                time_ms: parse_time(&time).ok_or_else(|| format!("{time:?} is no time"))?,
                event,
                success,
                fields: exact(fields)?,
            })),
            AnyLine {
                sequence: Some(sequence),
                time: Some(time),
                event: Some(event),
                success: Some(success),
                fields: Some(fields),
                hash: Some(hash),
                ..
            } => Ok(Self::Record(Recorded {
                sequence,
                time_ms: parse_time(&time).ok_or_else(|| format!("{time:?} is no time"))?,
                event,
                success,
                fields: exact(fields)?,
                hash: parse_hash(&hash)?,
            })),
            AnyLine {
                checkpoint: Some(checkpoint),
                ..
            } => checkpoint.read().map(Self::Checkpoint),
            AnyLine {
                audit_key: Some(key),
                ..
            } => Jwk::from_members(&key)
                .map(Self::Key)
                .ok_or_else(|| "its audit key is no JWK of a known kind".to_owned()),
            AnyLine {
                export: Some(export),
                ..
            } => match export.version {
                1 => Ok(Self::Export(Export {
                    trust_domain: export.trust_domain,
                    first: export.first,
                    previous: parse_hash(&export.previous_hash)?,
                    last: export.last,
                })),
                version => Err(format!(
                    "the export is of version {version}, this issuer knows version 1"
                )),
            },
            _ => Err(
                "it has not what a record has: sequence, time, event, success, fields, hash"
                    .to_owned(),
            ),
        }
    }
}

/// Whether the code in a line that was parsed is that of its event, so that nobody who
/// sorts records by it is misled: no hash covers it. (A newer issuer may have codes that
/// this one does not know.)
pub fn check_code(text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Coded {
        event: Option<String>,
        code: Option<String>,
        success: Option<bool>,
    }
    let line: Coded = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (Some(event), Some(success), Some(told)) = (line.event, line.success, line.code) else {
        return Ok(());
    };
    match codes::code(&event, success) {
        Some(known) if known != told => Err(format!(
            "its code is {told:?}, that of its event is {known:?}"
        )),
        _ => Ok(()),
    }
}

fn record_json(record: &Recorded) -> String {
    format!(
        r#"{{"sequence":{},{},"hash":"{}"}}"#,
        record.sequence,
        told_json(
            record.time_ms,
            &record.event,
            record.success,
            &record.fields
        ),
        hex::encode(record.hash)
    )
}

fn told_json(time_ms: i64, event: &str, success: bool, fields: &str) -> String {
    let code = codes::code(event, success);
    let code = code.map(|code| format!(r#""code":"{code}","#));
    format!(
        r#""time":"{}","event":{},{}"success":{success},"fields":{}"#,
        time_text(time_ms),
        json!(event),
        code.unwrap_or_default(),
        fields_json(fields),
    )
}

/// The fields as they are; as a text, where somebody has put something else there.
fn fields_json(fields: &str) -> String {
    let is_object = fields.starts_with('{')
        && !fields.contains(['\n', '\r'])
        && serde_json::from_str::<&RawValue>(fields).is_ok();
    match is_object {
        true => fields.to_owned(),
        false => json!(fields).to_string(),
    }
}

fn exact(fields: &RawValue) -> Result<String, String> {
    let text = fields.get();
    match text.starts_with('"') {
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => Ok(text.to_owned()),
    }
}

fn parse_hash(text: &str) -> Result<Hash, String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash)
        .map_err(|_| format!("{text:?} is no hash: 64 hexadecimal digits"))?;
    Ok(hash)
}

fn parse_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text)
        .map_err(|error| format!("{text:?} is no base64: {error}"))
}

/// Every key of every sort of line.
#[derive(Deserialize)]
struct AnyLine<'a> {
    sequence: Option<u64>,
    time: Option<String>,
    event: Option<String>,
    success: Option<bool>,
    #[serde(borrow)]
    fields: Option<&'a RawValue>,
    hash: Option<String>,
    checkpoint: Option<CheckpointJson>,
    audit_key: Option<Map<String, Value>>,
    export: Option<ExportJson>,
    not_durable: Option<bool>,
}

#[derive(Deserialize)]
struct CheckpointJson {
    trust_domain: String,
    sequence: u64,
    hash: String,
    time: String,
    key_id: String,
    signature: String,
}

impl CheckpointJson {
    fn read(self) -> Result<Checkpoint, String> {
        let time = &self.time;
        Ok(Checkpoint {
            head: Head {
                time_ms: parse_time(time).ok_or_else(|| format!("{time:?} is no time"))?,
                trust_domain: self.trust_domain,
                sequence: self.sequence,
                hash: parse_hash(&self.hash)?,
            },
            key_id: self.key_id,
            signature: parse_base64(&self.signature)?,
        })
    }
}

#[derive(Deserialize)]
struct ExportJson {
    version: u64,
    trust_domain: String,
    first: u64,
    previous_hash: String,
    last: u64,
}

#[cfg(test)]
mod tests;
