//! Facts about the issuer that are fixed or counted: `trust_domain`,
//! `bundle_sequence`, `renew_epoch`.

use sqlx::AnyConnection;

use super::{StoreError, Tx, to_i64};

/// The trust domain; written once.
pub const TRUST_DOMAIN: &str = "trust_domain";
/// `spiffe_sequence` of the trust bundle (TB-03).
pub const BUNDLE_SEQUENCE: &str = "bundle_sequence";
/// Newest renewal epoch that was ordered.
pub const RENEW_EPOCH: &str = "renew_epoch";
/// The window over which that renewal is spread, in milliseconds.
pub const RENEW_WITHIN: &str = "renew_within_ms";

/// Reads one.
pub async fn read(
    connection: &mut AnyConnection,
    key: &'static str,
) -> Result<Option<String>, StoreError> {
    let row: Option<(String,)> = sqlx::query_as("SELECT value FROM settings WHERE key = $1")
        .bind(key)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|(value,)| value))
}

/// Reads a number; absent: 0.
pub async fn read_number(
    connection: &mut AnyConnection,
    key: &'static str,
) -> Result<u64, StoreError> {
    let Some(text) = read(connection, key).await? else {
        return Ok(0);
    };
    text.parse()
        .map_err(|_| StoreError::Damaged(format!("setting {key} is {text:?}, not a number")))
}

/// Those that changed after a revision.
pub(super) async fn changed(
    connection: &mut AnyConnection,
    since: i64,
) -> Result<Vec<(String, String)>, StoreError> {
    Ok(
        sqlx::query_as("SELECT key, value FROM settings WHERE changed > $1")
            .bind(since)
            .fetch_all(connection)
            .await?,
    )
}

/// Writes one that is not there yet; one that is there is not changed but an error.
pub async fn insert(tx: &mut Tx, key: &'static str, value: &str) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query("INSERT INTO settings (key, value, changed) VALUES ($1, $2, $3)")
        .bind(key)
        .bind(value)
        .bind(to_i64(changed))
        .execute(tx.connection().await?)
        .await?;
    Ok(())
}

/// Writes one, whether it is there or not.
pub async fn write(tx: &mut Tx, key: &'static str, value: &str) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query(
        "INSERT INTO settings (key, value, changed) VALUES ($1, $2, $3)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed = excluded.changed",
    )
    .bind(key)
    .bind(value)
    .bind(to_i64(changed))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}

/// Counts the trust bundle's content on (TB-03).
pub async fn raise_bundle_sequence(tx: &mut Tx) -> Result<(), StoreError> {
    let next = read_number(tx.connection().await?, BUNDLE_SEQUENCE).await? + 1;
    write(tx, BUNDLE_SEQUENCE, &next.to_string()).await
}
