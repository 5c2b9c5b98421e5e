//! Facts about the issuer that are fixed or counted: `trust_domain`,
//! `bundle_sequence`, `renew_epoch`.

use sqlx::SqliteConnection;

use super::StoreError;

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
    connection: &mut SqliteConnection,
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
    connection: &mut SqliteConnection,
    key: &'static str,
) -> Result<u64, StoreError> {
    let Some(text) = read(connection, key).await? else {
        return Ok(0);
    };
    text.parse()
        .map_err(|_| StoreError::Damaged(format!("setting {key} is {text:?}, not a number")))
}

/// Writes one that is not there yet; one that is there is not changed but an error.
pub async fn insert(
    connection: &mut SqliteConnection,
    key: &'static str,
    value: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO settings (key, value) VALUES ($1, $2)")
        .bind(key)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes one, whether it is there or not.
pub async fn write(
    connection: &mut SqliteConnection,
    key: &'static str,
    value: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO settings (key, value) VALUES ($1, $2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(key)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts the trust bundle's content on (TB-03).
pub async fn raise_bundle_sequence(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let next = read_number(connection, BUNDLE_SEQUENCE).await? + 1;
    write(connection, BUNDLE_SEQUENCE, &next.to_string()).await
}
