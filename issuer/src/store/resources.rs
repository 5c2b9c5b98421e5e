//! Bots, roles and workload identities, each as the encoded
//! `tbot.admin.v1.Resource` that it came as.

use prost::Message;
use proto::admin::v1 as pb;
use sqlx::AnyConnection;

use super::{StoreError, Tx, to_i64, to_u64};
use crate::resources::{Kind, Resource, wire};

type ResourceRow = (i64, Vec<u8>);

/// Reads what a row holds.
pub(crate) fn decode(kind: Kind, revision: u64, content: &[u8]) -> Result<Resource, StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("a {kind}: {why}"));
    let resource = pb::Resource::decode(content).map_err(|error| damaged(error.to_string()))?;
    let mut resource = wire::from_wire(resource).map_err(|error| damaged(error.to_string()))?;
    resource.metadata.revision = revision;
    Ok(resource)
}

/// Reads one by name.
pub async fn read(
    connection: &mut AnyConnection,
    kind: Kind,
    name: &str,
) -> Result<Option<Resource>, StoreError> {
    let row: Option<ResourceRow> =
        sqlx::query_as("SELECT revision, content FROM resources WHERE kind = $1 AND name = $2")
            .bind(kind.as_str())
            .bind(name)
            .fetch_optional(connection)
            .await?;
    row.map(|(revision, content)| decode(kind, to_u64(revision), &content))
        .transpose()
}

/// Lists all of a kind, by name.
pub async fn list(connection: &mut AnyConnection, kind: Kind) -> Result<Vec<Resource>, StoreError> {
    let rows: Vec<ResourceRow> =
        sqlx::query_as("SELECT revision, content FROM resources WHERE kind = $1")
            .bind(kind.as_str())
            .fetch_all(connection)
            .await?;
    let resources: Result<Vec<_>, _> = rows
        .into_iter()
        .map(|(revision, content)| decode(kind, to_u64(revision), &content))
        .collect();
    let mut resources = resources?;
    // Not by the database: how it orders text is its own affair.
    resources.sort_by(|one, other| one.metadata.name.as_str().cmp(other.metadata.name.as_str()));
    Ok(resources)
}

/// Adds or replaces one, with the revision that it carries.
pub async fn put(tx: &mut Tx, resource: &Resource) -> Result<(), StoreError> {
    let changed = tx.bump();
    sqlx::query(
        "INSERT INTO resources (kind, name, revision, content, changed)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision,
             content = excluded.content, changed = excluded.changed",
    )
    .bind(resource.kind().as_str())
    .bind(resource.metadata.name.as_str())
    .bind(to_i64(resource.metadata.revision))
    .bind(wire::to_wire(resource).encode_to_vec())
    .bind(to_i64(changed))
    .execute(tx.connection().await?)
    .await?;
    Ok(())
}

/// Removes one; whether there was one.
pub async fn remove(tx: &mut Tx, kind: Kind, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM resources WHERE kind = $1 AND name = $2")
        .bind(kind.as_str())
        .bind(name)
        .execute(tx.connection().await?)
        .await?;
    let found = done.rows_affected() > 0;
    if found {
        tx.bury(kind.as_str(), name).await?;
    }
    Ok(found)
}
