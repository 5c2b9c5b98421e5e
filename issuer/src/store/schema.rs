//! The tables, as forward-only migrations that are part of the program. A
//! migration that has shipped is never edited: a change is a new one.

use std::time::Duration;

use prost::Message;
use sqlx::{
    AnyConnection, AssertSqlSafe, SqlSafeStr, SqlStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{Database, Engine, StoreError, audit, to_i64};
use crate::{
    audit::chain::START,
    resources::{LockSpec, wire},
};

const V1: &str = "
CREATE TABLE settings (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);
CREATE TABLE authorities (
    key_id TEXT PRIMARY KEY NOT NULL,
    certificate BLOB NOT NULL,
    sealed_key BLOB NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    bot_name TEXT NOT NULL,
    labels TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT
);
CREATE INDEX tokens_by_bot ON tokens (bot_name);
CREATE TABLE bot_instances (
    instance_id TEXT PRIMARY KEY NOT NULL,
    bot_name TEXT NOT NULL,
    generation BIGINT NOT NULL,
    key_sha256 BLOB NOT NULL,
    joined BIGINT NOT NULL,
    renewed BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    hostname TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    join_method TEXT NOT NULL,
    join_token_name TEXT NOT NULL
);
CREATE INDEX bot_instances_by_bot ON bot_instances (bot_name);
CREATE TABLE locks (
    target TEXT PRIMARY KEY NOT NULL,
    reason TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE audit_events (
    sequence BIGINT PRIMARY KEY NOT NULL,
    time BIGINT NOT NULL,
    event TEXT NOT NULL,
    success BIGINT NOT NULL,
    bot_name TEXT NOT NULL,
    spiffe_id TEXT NOT NULL,
    fields TEXT NOT NULL
);
CREATE INDEX audit_events_by_bot ON audit_events (bot_name, sequence);
CREATE INDEX audit_events_by_id ON audit_events (spiffe_id, sequence);
";

const V2: &str = "
ALTER TABLE bot_instances ADD COLUMN newest_seen BIGINT;
CREATE INDEX bot_instances_by_end ON bot_instances (not_after);
";

const V3: &str = "
ALTER TABLE settings ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE resources ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX resources_by_change ON resources (changed);
ALTER TABLE bot_instances ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN description TEXT NOT NULL DEFAULT '';
CREATE INDEX bot_instances_by_change ON bot_instances (changed);
CREATE TABLE tombstones (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE INDEX tombstones_by_change ON tombstones (changed);
ALTER TABLE authorities ADD COLUMN key_use TEXT NOT NULL DEFAULT 'x509';
ALTER TABLE authorities ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE authorities ADD COLUMN activated BIGINT;
ALTER TABLE authorities ADD COLUMN retired BIGINT;
ALTER TABLE authorities ADD COLUMN not_after BIGINT;
ALTER TABLE authorities ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_events ADD COLUMN serial TEXT NOT NULL DEFAULT '';
ALTER TABLE audit_events ADD COLUMN hash BLOB;
CREATE INDEX audit_events_by_serial ON audit_events (serial) WHERE serial <> '';
CREATE INDEX audit_events_by_time ON audit_events (time);
CREATE TABLE audit_checkpoints (
    sequence BIGINT PRIMARY KEY NOT NULL,
    hash BLOB NOT NULL,
    time BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    signature BLOB NOT NULL
);
CREATE TABLE head (
    id BIGINT PRIMARY KEY NOT NULL,
    sequence BIGINT NOT NULL,
    hash BLOB NOT NULL,
    revision BIGINT NOT NULL,
    forgotten BIGINT NOT NULL,
    checkpoint BIGINT NOT NULL,
    checkpoint_time BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    signed BIGINT NOT NULL,
    signature BLOB NOT NULL
);
";

const V4: &str = "
CREATE INDEX audit_events_by_event ON audit_events (event, sequence);
CREATE TABLE audit_cursors (
    sink TEXT PRIMARY KEY NOT NULL,
    sequence BIGINT NOT NULL
);
";

/// How often a migration is tried on a server on which others may migrate too.
const ATTEMPTS: u32 = 8;

/// Applies what is missing. A store that knows more than this program is refused.
pub(super) async fn migrate(
    connection: &mut AnyConnection,
    database: &Database,
) -> Result<(), StoreError> {
    let misfit = |error: MigrateError| StoreError::Schema {
        database: database.to_string(),
        reason: error.to_string(),
    };
    let mut attempt = 1;
    while let Err(error) = migrator(database.engine())
        .run_direct(None, connection, false)
        .await
    {
        // Nothing is locked, for not every server has such locks. Of two that
        // migrate at once, one fails on what the other has made, and looks again.
        let other = matches!(
            error,
            MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)
        );
        if !other || attempt == ATTEMPTS || database.engine() == Engine::Sqlite {
            return Err(misfit(error));
        }
        tokio::time::sleep(Duration::from_millis(50 * u64::from(attempt))).await;
        attempt += 1;
    }
    let mut attempt = 1;
    loop {
        let made = make_head(connection, database.engine()).await;
        match made {
            Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
            made => return made,
        }
    }
}

fn migrator(engine: Engine) -> Migrator {
    let steps = [
        (1, "first tables", V1),
        (2, "copies found on issuance", V2),
        (3, "chained audit, several issuers", V3),
        (4, "audit by event, sinks", V4),
    ];
    let migrations = steps.map(|(version, description, sql)| {
        let sql = match engine {
            Engine::Sqlite => SqlStr::from_static(sql),
            Engine::Postgres => AssertSqlSafe(sql.replace(" BLOB", " BYTEA")).into_sql_str(),
        };
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql,
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.to_vec());
    migrator.set_locking(false);
    migrator
}

/// Makes the head, and with it chains the events of a store that had no chain:
/// one transaction, so that a store with a head is a store with a chain. Of two
/// issuers that come here at once, the database lets one do it.
async fn make_head(connection: &mut AnyConnection, engine: Engine) -> Result<(), StoreError> {
    sqlx::query(engine.begin())
        .execute(&mut *connection)
        .await?;
    let made = make_head_within(connection).await;
    let end = match made {
        Ok(()) => "COMMIT",
        Err(_) => "ROLLBACK",
    };
    let ended = sqlx::query(end).execute(connection).await;
    made?;
    ended?;
    Ok(())
}

async fn make_head_within(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let made = sqlx::query(
        "INSERT INTO head (id, sequence, hash, revision, forgotten, checkpoint, checkpoint_time,
             key_id, signed, signature)
         VALUES (1, 0, $1, 1, 0, 0, 0, '', 0, $2) ON CONFLICT (id) DO NOTHING",
    )
    .bind(START.as_slice())
    .bind([].as_slice())
    .execute(&mut *connection)
    .await?;
    if made.rows_affected() == 0 {
        return Ok(());
    }
    locks_to_resources(connection).await?;
    let (sequence, hash) = audit::rows::chain_old_events(connection).await?;
    sqlx::query("UPDATE head SET sequence = $1, hash = $2 WHERE id = 1")
        .bind(to_i64(sequence))
        .bind(hash.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks on instances had a table of their own; now they are resources as others are.
async fn locks_to_resources(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let locks: Vec<(String, String)> = sqlx::query_as("SELECT target, reason FROM locks")
        .fetch_all(&mut *connection)
        .await?;
    for (instance_id, reason) in locks {
        let lock = LockSpec::automatic(&instance_id, &reason)
            .map_err(|error| StoreError::Damaged(format!("a lock: {error}")))?;
        sqlx::query("INSERT INTO resources (kind, name, revision, content) VALUES ($1, $2, 1, $3)")
            .bind(lock.kind().as_str())
            .bind(lock.metadata.name.as_str())
            .bind(wire::to_wire(&lock).encode_to_vec())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DROP TABLE locks").execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
