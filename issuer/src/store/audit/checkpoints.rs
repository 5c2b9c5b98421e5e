//! Signed heads of the trail, and the keys that signed them.

use identity::Jwk;
use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use crate::{
    audit::chain::{Checkpoint, Head},
    authority::KeyUse,
    store::{StoreError, authorities, head, head::hash_of, settings, to_i64, to_millis, to_u64},
};

/// Whose trail it is.
pub async fn trust_domain(connection: &mut AnyConnection) -> Result<String, StoreError> {
    let name = settings::read(connection, settings::TRUST_DOMAIN).await?;
    name.ok_or_else(|| StoreError::Damaged("it has no trust domain".to_owned()))
}

/// The kept checkpoints of the records `from` to `to`, in order, at most `limit`.
pub async fn read(
    connection: &mut AnyConnection,
    from: u64,
    to: u64,
    limit: u32,
) -> Result<Vec<Checkpoint>, StoreError> {
    let rows: Vec<CheckpointRow> = sqlx::query_as(
        "SELECT sequence, hash, time, key_id, signature FROM audit_checkpoints
         WHERE sequence >= $1 AND sequence <= $2 ORDER BY sequence LIMIT $3",
    )
    .bind(to_i64(from))
    .bind(to_i64(to))
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let trust_domain = trust_domain(connection).await?;
    let checkpoint = |CheckpointRow(mut checkpoint): CheckpointRow| {
        checkpoint.head.trust_domain.clone_from(&trust_domain);
        checkpoint
    };
    Ok(rows.into_iter().map(checkpoint).collect())
}

/// The head as it is signed now, and the number of the newest record. No checkpoint:
/// nobody has signed it yet.
pub async fn newest(
    connection: &mut AnyConnection,
) -> Result<(u64, Option<Checkpoint>), StoreError> {
    let (head, signature) = head::read_signed(connection).await?;
    if signature.key_id.is_empty() {
        return Ok((head.sequence, None));
    }
    let checkpoint = Checkpoint {
        head: Head {
            trust_domain: trust_domain(connection).await?,
            sequence: head.sequence,
            hash: head.hash,
            time_ms: to_millis(signature.time),
        },
        key_id: signature.key_id,
        signature: signature.signature,
    };
    Ok((head.sequence, Some(checkpoint)))
}

/// The public halves of all audit keys, older ones too.
pub async fn keys(connection: &mut AnyConnection) -> Result<Vec<Jwk>, StoreError> {
    let keys = authorities::list(connection).await?;
    keys.iter()
        .filter(|key| key.key_use == KeyUse::Audit)
        .map(|key| {
            let members = serde_json::from_slice(&key.certificate).ok();
            members
                .as_ref()
                .and_then(Jwk::from_members)
                .ok_or_else(|| StoreError::Damaged(format!("the audit key {:?}", key.key_id)))
        })
        .collect()
}

/// A checkpoint as its row has it: the trust domain is the store's.
struct CheckpointRow(Checkpoint);

impl FromRow<'_, AnyRow> for CheckpointRow {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self(Checkpoint {
            head: Head {
                trust_domain: String::new(),
                sequence: to_u64(row.try_get("sequence")?),
                hash: hash_of(row, "hash")?,
                time_ms: row.try_get("time")?,
            },
            key_id: row.try_get("key_id")?,
            signature: row.try_get("signature")?,
        }))
    }
}
