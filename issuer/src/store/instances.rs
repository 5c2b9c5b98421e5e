//! Joined instances of bots.

use std::time::SystemTime;

use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use super::{StoreError, Tx, feed, from_millis, to_i64, to_millis, to_u64};

/// One joined process.
#[derive(Debug, Clone)]
pub struct BotInstance {
    /// UUID.
    pub instance_id: String,
    /// The bot that it is an instance of.
    pub bot_name: String,
    /// Newest generation handed out.
    pub generation: u64,
    /// SHA-256 of the public key (SPKI) that the newest generation was signed for.
    pub key_sha256: Vec<u8>,
    /// When it joined.
    pub joined: SystemTime,
    /// When its newest generation was handed out.
    pub renewed: SystemTime,
    /// End of validity of the newest certificate.
    pub not_after: SystemTime,
    /// As the agent told it.
    pub hostname: String,
    /// As the agent told it.
    pub agent_version: String,
    /// How it joined.
    pub join_method: String,
    /// By which token; empty where a token's name is a secret.
    pub join_token_name: String,
    /// When the newest certificate was first presented, if it was.
    pub newest_seen: Option<SystemTime>,
}

/// Each column by its name: a newer issuer on the same database may add some.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT instance_id, bot_name, generation, key_sha256, joined, renewed, not_after,
                 hostname, agent_version, join_method, join_token_name, newest_seen
             FROM bot_instances ",
            $rest
        )
    };
}

impl FromRow<'_, AnyRow> for BotInstance {
    fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
        Ok(Self {
            instance_id: row.try_get("instance_id")?,
            bot_name: row.try_get("bot_name")?,
            generation: to_u64(row.try_get("generation")?),
            key_sha256: row.try_get("key_sha256")?,
            joined: from_millis(row.try_get("joined")?),
            renewed: from_millis(row.try_get("renewed")?),
            not_after: from_millis(row.try_get("not_after")?),
            hostname: row.try_get("hostname")?,
            agent_version: row.try_get("agent_version")?,
            join_method: row.try_get("join_method")?,
            join_token_name: row.try_get("join_token_name")?,
            newest_seen: row
                .try_get::<Option<i64>, _>("newest_seen")?
                .map(from_millis),
        })
    }
}

/// Reads one.
pub async fn read(
    connection: &mut AnyConnection,
    bot_name: &str,
    instance_id: &str,
) -> Result<Option<BotInstance>, StoreError> {
    Ok(
        sqlx::query_as(select!("WHERE instance_id = $1 AND bot_name = $2"))
            .bind(instance_id)
            .bind(bot_name)
            .fetch_optional(connection)
            .await?,
    )
}

/// Lists those of a bot, or of all bots if the name is empty.
pub async fn list(
    connection: &mut AnyConnection,
    bot_name: &str,
) -> Result<Vec<BotInstance>, StoreError> {
    Ok(sqlx::query_as(select!(
        "WHERE $1 = '' OR bot_name = $1
         ORDER BY bot_name, joined"
    ))
    .bind(bot_name)
    .fetch_all(connection)
    .await?)
}

/// Those that changed after a revision.
pub(super) async fn changed(
    connection: &mut AnyConnection,
    since: i64,
) -> Result<Vec<BotInstance>, StoreError> {
    Ok(sqlx::query_as(select!("WHERE changed > $1"))
        .bind(since)
        .fetch_all(connection)
        .await?)
}

/// Adds one.
pub async fn add(tx: &mut Tx, instance: &BotInstance) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query(
        "INSERT INTO bot_instances (instance_id, bot_name, generation, key_sha256, joined,
             renewed, not_after, hostname, agent_version, join_method, join_token_name, changed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(instance.instance_id.as_str())
    .bind(instance.bot_name.as_str())
    .bind(to_i64(instance.generation))
    .bind(instance.key_sha256.as_slice())
    .bind(to_millis(instance.joined))
    .bind(to_millis(instance.renewed))
    .bind(to_millis(instance.not_after))
    .bind(instance.hostname.as_str())
    .bind(instance.agent_version.as_str())
    .bind(instance.join_method.as_str())
    .bind(instance.join_token_name.as_str())
    .bind(to_i64(changed))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}

/// Records a renewal: generation, key, times and what the agent told.
pub async fn renewed(tx: &mut Tx, instance: &BotInstance) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query(
        "UPDATE bot_instances SET generation = $2, key_sha256 = $3, renewed = $4,
             not_after = $5, hostname = $6, agent_version = $7, newest_seen = $8, changed = $9
         WHERE instance_id = $1",
    )
    .bind(instance.instance_id.as_str())
    .bind(to_i64(instance.generation))
    .bind(instance.key_sha256.as_slice())
    .bind(to_millis(instance.renewed))
    .bind(to_millis(instance.not_after))
    .bind(instance.hostname.as_str())
    .bind(instance.agent_version.as_str())
    .bind(instance.newest_seen.map(to_millis))
    .bind(to_i64(changed))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}

/// Notes that the newest certificate was presented.
pub async fn newest_seen(
    tx: &mut Tx,
    instance_id: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query("UPDATE bot_instances SET newest_seen = $2, changed = $3 WHERE instance_id = $1")
        .bind(instance_id)
        .bind(to_millis(now))
        .bind(to_i64(changed))
        .execute(tx.connection().await?)
        .await?;
    Ok(())
}

/// Lists up to `limit` instances whose newest certificate ended before `before`:
/// nobody can come back as them.
pub async fn ended(
    connection: &mut AnyConnection,
    before: SystemTime,
    limit: i64,
) -> Result<Vec<BotInstance>, StoreError> {
    Ok(
        sqlx::query_as(select!("WHERE not_after < $1 ORDER BY not_after LIMIT $2"))
            .bind(to_millis(before))
            .bind(limit)
            .fetch_all(connection)
            .await?,
    )
}

/// Forgets one. A certificate that it still holds is refused from then on.
pub async fn remove(tx: &mut Tx, instance_id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM bot_instances WHERE instance_id = $1")
        .bind(instance_id)
        .execute(tx.connection().await?)
        .await?;
    tx.bury(feed::INSTANCE, instance_id).await
}
