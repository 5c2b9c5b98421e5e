//! The keys of the authority, private parts sealed.

use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use super::{StoreError, Tx, feed, from_millis, to_i64, to_millis};
use crate::authority::{CA_LIFE, KeyState, KeyUse, StoredAuthority, whole_seconds};

impl FromRow<'_, AnyRow> for StoredAuthority {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        let damaged =
            |what: &str, value: &str| sqlx::Error::Decode(format!("{what} {value:?}").into());
        let key_use: String = row.try_get("key_use")?;
        let state: String = row.try_get("state")?;
        let created = from_millis(row.try_get("created")?);
        let activated: Option<i64> = row.try_get("activated")?;
        let retired: Option<i64> = row.try_get("retired")?;
        let not_after: Option<i64> = row.try_get("not_after")?;
        Ok(Self {
            key_id: row.try_get("key_id")?,
            key_use: KeyUse::parse(&key_use).ok_or_else(|| damaged("key use", &key_use))?,
            state: KeyState::parse(&state).ok_or_else(|| damaged("key state", &state))?,
            certificate: row.try_get("certificate")?,
            sealed_key: row.try_get("sealed_key")?,
            created,
            activated: activated.map(from_millis),
            retired: retired.map(from_millis),
            // Before this column there were only CAs of this life.
            not_after: not_after.map_or_else(|| whole_seconds(created + CA_LIFE), from_millis),
        })
    }
}

/// Every key, the oldest first.
pub async fn list(connection: &mut AnyConnection) -> Result<Vec<StoredAuthority>, StoreError> {
    changed(connection, -1).await
}

/// Those that changed after a revision, the oldest first.
pub(super) async fn changed(
    connection: &mut AnyConnection,
    since: i64,
) -> Result<Vec<StoredAuthority>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT key_id, key_use, state, certificate, sealed_key, created, activated, retired,
             not_after FROM authorities WHERE changed > $1 ORDER BY created, key_id",
    )
    .bind(since)
    .fetch_all(connection)
    .await?)
}

/// Adds one.
pub async fn add(tx: &mut Tx, key: &StoredAuthority) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query(
        "INSERT INTO authorities (key_id, key_use, state, certificate, sealed_key, created,
             activated, retired, not_after, changed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(key.key_id.as_str())
    .bind(key.key_use.as_str())
    .bind(key.state.as_str())
    .bind(key.certificate.as_slice())
    .bind(key.sealed_key.as_slice())
    .bind(to_millis(key.created))
    .bind(key.activated.map(to_millis))
    .bind(key.retired.map(to_millis))
    .bind(to_millis(key.not_after))
    .bind(to_i64(changed))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}

/// Writes where one stands now.
pub async fn update(tx: &mut Tx, key: &StoredAuthority) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query(
        "UPDATE authorities SET state = $2, sealed_key = $3, activated = $4, retired = $5,
             changed = $6
         WHERE key_id = $1",
    )
    .bind(key.key_id.as_str())
    .bind(key.state.as_str())
    .bind(key.sealed_key.as_slice())
    .bind(key.activated.map(to_millis))
    .bind(key.retired.map(to_millis))
    .bind(to_i64(changed))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}

/// Removes one.
pub async fn remove(tx: &mut Tx, key_id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM authorities WHERE key_id = $1")
        .bind(key_id)
        .execute(tx.connection().await?)
        .await?;
    tx.bury(feed::AUTHORITY, key_id).await
}
