//! The issuer's own keys, for operators.

use std::time::SystemTime;

use proto::admin::v1 as pb;
use tonic::Status;

use super::timestamp;
use crate::{
    authority::{KeyFacts, KeyUse, RotationError},
    service::Issuer,
};

/// The keys as they are now.
pub(super) fn list(issuer: &Issuer) -> Vec<pb::Authority> {
    issuer.keyring().keys().iter().map(authority).collect()
}

/// Does what an operator orders.
pub(super) async fn rotate(
    issuer: &Issuer,
    request: pb::RotateAuthoritiesRequest,
    operator: String,
) -> Result<pb::RotateAuthoritiesResponse, Status> {
    let uses = match request.uses.as_slice() {
        [] => issuer.lifecycle().uses().collect(),
        named => named
            .iter()
            .map(|name| key_use(issuer, name))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let rotated = issuer.rotate_keys(uses, request.at_once, operator, SystemTime::now());
    let done = rotated.await.map_err(failed)?;
    Ok(pb::RotateAuthoritiesResponse {
        authorities: list(issuer),
        steps: u32::try_from(done.len()).unwrap_or(u32::MAX),
    })
}

/// Does what an operator orders.
pub(super) async fn withdraw(
    issuer: &Issuer,
    request: pb::WithdrawAuthorityRequest,
    operator: String,
) -> Result<pb::WithdrawAuthorityResponse, Status> {
    let (key_id, even_if_held) = (request.key_id, request.even_if_held);
    let withdrawn = issuer.withdraw_key(key_id, even_if_held, operator, SystemTime::now());
    withdrawn.await.map_err(failed)?;
    Ok(pb::WithdrawAuthorityResponse {
        authorities: list(issuer),
    })
}

fn key_use(issuer: &Issuer, name: &str) -> Result<KeyUse, Status> {
    let known: Vec<_> = issuer.lifecycle().uses().collect();
    let named = KeyUse::parse(name).filter(|key_use| known.contains(key_use));
    named.ok_or_else(|| {
        let known: Vec<_> = known.into_iter().map(KeyUse::as_str).collect();
        let known = known.join(", ");
        Status::invalid_argument(format!(
            "there are no keys of the use {name:?}: name one of {known}"
        ))
    })
}

fn failed(error: RotationError) -> Status {
    tracing::error!(%error, "an order about keys was not followed");
    match error {
        RotationError::NotWithdrawn(error) => Status::failed_precondition(error.to_string()),
        RotationError::Store(error) => Status::unavailable(error.to_string()),
        other => Status::internal(other.to_string()),
    }
}

fn authority(key: &KeyFacts) -> pb::Authority {
    pb::Authority {
        key_id: key.key_id.clone(),
        r#use: key.key_use.as_str().to_owned(),
        state: key.state.as_str().to_owned(),
        ca_pin: key.ca_pin.clone().unwrap_or_default(),
        created: Some(timestamp(key.created)),
        activated: key.activated.map(timestamp),
        retired: key.retired.map(timestamp),
        not_after: Some(timestamp(key.not_after)),
        next: key.next.map(timestamp),
    }
}
