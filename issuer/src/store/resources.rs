//! Bots, roles and workload identities, each as the encoded
//! `tbot.admin.v1.Resource` that it came as.

use prost::Message;
use proto::admin::v1 as pb;
use sqlx::SqliteConnection;

use super::{StoreError, to_i64, to_u64};
use crate::resources::{Kind, Resource, wire};

type ResourceRow = (i64, Vec<u8>);

fn decode(kind: Kind, (revision, content): ResourceRow) -> Result<Resource, StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("a {kind}: {why}"));
    let resource =
        pb::Resource::decode(content.as_slice()).map_err(|error| damaged(error.to_string()))?;
    let mut resource = wire::from_wire(resource).map_err(|error| damaged(error.to_string()))?;
    resource.metadata.revision = to_u64(revision);
    Ok(resource)
}

/// Reads one by name.
pub async fn read(
    connection: &mut SqliteConnection,
    kind: Kind,
    name: &str,
) -> Result<Option<Resource>, StoreError> {
    let row: Option<ResourceRow> =
        sqlx::query_as("SELECT revision, content FROM resources WHERE kind = $1 AND name = $2")
            .bind(kind.as_str())
            .bind(name)
            .fetch_optional(connection)
            .await?;
    row.map(|row| decode(kind, row)).transpose()
}

/// Lists all of a kind, by name.
pub async fn list(
    connection: &mut SqliteConnection,
    kind: Kind,
) -> Result<Vec<Resource>, StoreError> {
    let rows: Vec<ResourceRow> =
        sqlx::query_as("SELECT revision, content FROM resources WHERE kind = $1 ORDER BY name")
            .bind(kind.as_str())
            .fetch_all(connection)
            .await?;
    rows.into_iter().map(|row| decode(kind, row)).collect()
}

/// Adds or replaces one, with the revision that it carries.
pub async fn put(connection: &mut SqliteConnection, resource: &Resource) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO resources (kind, name, revision, content) VALUES ($1, $2, $3, $4)
         ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision,
             content = excluded.content",
    )
    .bind(resource.kind().as_str())
    .bind(resource.metadata.name.as_str())
    .bind(to_i64(resource.metadata.revision))
    .bind(wire::to_wire(resource).encode_to_vec())
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes one; whether there was one.
pub async fn remove(
    connection: &mut SqliteConnection,
    kind: Kind,
    name: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM resources WHERE kind = $1 AND name = $2")
        .bind(kind.as_str())
        .bind(name)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}
