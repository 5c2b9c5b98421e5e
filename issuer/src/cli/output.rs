//! How answers of the issuer are shown.

use std::time::SystemTime;

use proto::admin::v1 as pb;

use crate::{authority::rfc3339, resources::yaml};

/// `2026-11-21T20:53:01Z`; empty if there is none.
pub(super) fn time(timestamp: Option<prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|timestamp| SystemTime::try_from(timestamp).ok())
        .map(rfc3339)
        .unwrap_or_default()
}

/// The kind's name.
pub(super) fn kind(resource: &pb::Resource) -> &'static str {
    yaml::kind_of(resource).map_or("", |kind| kind.as_str())
}

/// `kind/name`.
pub(super) fn reference(resource: &pb::Resource) -> String {
    let name = resource
        .metadata
        .as_ref()
        .map_or("", |metadata| &metadata.name);
    format!("{}/{name}", kind(resource))
}
