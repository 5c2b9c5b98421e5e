//! CA certificates and their sealed keys.

use std::time::SystemTime;

use sqlx::SqliteConnection;

use super::{StoreError, to_millis};

/// An authority as it is stored.
#[derive(Debug)]
pub struct StoredAuthority {
    /// Subject key identifier, lower-case hex.
    pub key_id: String,
    /// DER.
    pub certificate: Vec<u8>,
    /// See [`crate::authority::keyfile::SealingKey`].
    pub sealed_key: Vec<u8>,
}

/// Every authority, the newest first.
pub async fn list(connection: &mut SqliteConnection) -> Result<Vec<StoredAuthority>, StoreError> {
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT key_id, certificate, sealed_key FROM authorities ORDER BY created DESC",
    )
    .fetch_all(connection)
    .await?;
    let stored = |(key_id, certificate, sealed_key)| StoredAuthority {
        key_id,
        certificate,
        sealed_key,
    };
    Ok(rows.into_iter().map(stored).collect())
}

/// Adds one.
pub async fn add(
    connection: &mut SqliteConnection,
    authority: &StoredAuthority,
    now: SystemTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO authorities (key_id, certificate, sealed_key, created)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(authority.key_id.as_str())
    .bind(authority.certificate.as_slice())
    .bind(authority.sealed_key.as_slice())
    .bind(to_millis(now))
    .execute(connection)
    .await?;
    Ok(())
}
