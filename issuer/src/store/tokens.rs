//! Join tokens, known by the SHA-256 of their secret.

use std::{collections::BTreeMap, time::SystemTime};

use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use super::{StoreError, from_millis, to_i64, to_millis, to_u64};
use crate::resources::{Metadata, NameError, Resource, ResourceName, Spec, TokenSpec};

/// A token as it is stored.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// How it is shown: the beginning of the hash.
    pub name: String,
    /// The bot that joins by it.
    pub bot_name: String,
    /// Description of the resource.
    pub description: String,
    /// Labels of the resource.
    pub labels: BTreeMap<String, String>,
    /// Revision of the resource.
    pub revision: u64,
    /// When it ends.
    pub expires: SystemTime,
    /// When it was used, if it was.
    pub used_at: Option<SystemTime>,
    /// Which instance joined by it.
    pub used_by: Option<String>,
}

impl StoredToken {
    /// As the resource that it is. The secret is gone.
    pub fn to_resource(&self) -> Result<Resource, NameError> {
        Ok(Resource {
            metadata: Metadata {
                name: ResourceName::parse(&self.name)?,
                labels: self.labels.clone(),
                revision: self.revision,
                expires: Some(self.expires),
                description: self.description.clone(),
            },
            spec: Spec::Token(TokenSpec {
                bot_name: ResourceName::parse(&self.bot_name)?,
                secret: None,
            }),
        })
    }
}

impl FromRow<'_, AnyRow> for StoredToken {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        let labels: String = row.try_get("labels")?;
        let used_at: Option<i64> = row.try_get("used_at")?;
        Ok(Self {
            hash: row.try_get("hash")?,
            name: row.try_get("name")?,
            bot_name: row.try_get("bot_name")?,
            description: row.try_get("description")?,
            labels: serde_json::from_str(&labels)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            revision: to_u64(row.try_get("revision")?),
            expires: from_millis(row.try_get("expires")?),
            used_at: used_at.map(from_millis),
            used_by: row.try_get("used_by")?,
        })
    }
}

/// Each column by its name: a newer issuer on the same database may add some.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT hash, name, bot_name, labels, revision, created, expires, used_at, used_by,
                 description FROM tokens ",
            $rest
        )
    };
}

/// Looks one up by the hash of its secret.
pub async fn read(
    connection: &mut AnyConnection,
    hash: &[u8],
) -> Result<Option<StoredToken>, StoreError> {
    Ok(sqlx::query_as(select!("WHERE hash = $1"))
        .bind(hash)
        .fetch_optional(connection)
        .await?)
}

/// Lists those that are not used: all, or the one that is shown under `name`.
pub async fn list(
    connection: &mut AnyConnection,
    name: &str,
) -> Result<Vec<StoredToken>, StoreError> {
    Ok(sqlx::query_as(select!(
        "WHERE used_at IS NULL AND ($1 = '' OR name = $1) ORDER BY created, name"
    ))
    .bind(name)
    .fetch_all(connection)
    .await?)
}

/// Adds or replaces one.
pub async fn put(
    connection: &mut AnyConnection,
    token: &StoredToken,
    now: SystemTime,
) -> Result<(), StoreError> {
    let labels = serde_json::to_string(&token.labels)
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    sqlx::query(
        "INSERT INTO tokens (hash, name, bot_name, labels, revision, created, expires,
             description)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (hash) DO UPDATE SET bot_name = excluded.bot_name,
             labels = excluded.labels, description = excluded.description, revision = excluded.revision, expires = excluded.expires",
    )
    .bind(token.hash.as_slice())
    .bind(token.name.as_str())
    .bind(token.bot_name.as_str())
    .bind(labels)
    .bind(to_i64(token.revision))
    .bind(to_millis(now))
    .bind(to_millis(token.expires))
    .bind(token.description.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks one as used.
pub async fn consume(
    connection: &mut AnyConnection,
    hash: &[u8],
    instance_id: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE tokens SET used_at = $2, used_by = $3 WHERE hash = $1")
        .bind(hash)
        .bind(to_millis(now))
        .bind(instance_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the one that is shown under `name`; whether there was one.
pub async fn remove(connection: &mut AnyConnection, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM tokens WHERE name = $1 AND used_at IS NULL")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes every token of a bot.
pub async fn remove_of_bot(
    connection: &mut AnyConnection,
    bot_name: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE bot_name = $1")
        .bind(bot_name)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets tokens that ended before `before`, used or not. (Until then a used
/// one is remembered, so that its second use is told from an unknown one.)
pub async fn remove_ended(
    connection: &mut AnyConnection,
    before: SystemTime,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE expires < $1")
        .bind(to_millis(before))
        .execute(connection)
        .await?;
    Ok(())
}
