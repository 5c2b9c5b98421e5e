//! The tables, as forward-only migrations that are part of the program. A
//! migration that has shipped is never edited: a change is a new one.

use std::path::Path;

use sqlx::{
    SqlStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
};

use super::StoreError;

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
ALTER TABLE authorities ADD COLUMN key_use TEXT NOT NULL DEFAULT 'x509';
ALTER TABLE authorities ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE authorities ADD COLUMN activated BIGINT;
ALTER TABLE authorities ADD COLUMN retired BIGINT;
ALTER TABLE authorities ADD COLUMN not_after BIGINT;
";

/// Applies what is missing. A store that knows more than this program is refused.
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), StoreError> {
    let steps = [
        (1, "first tables", V1),
        (2, "copies found on issuance", V2),
        (3, "keys of several uses", V3),
    ];
    let migrations = steps.map(|(version, description, sql)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            SqlStr::from_static(sql),
            false,
        )
    });
    Migrator::with_migrations(migrations.to_vec())
        .run_direct(None, connection, false)
        .await
        .map_err(|error| StoreError::Schema {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
}
