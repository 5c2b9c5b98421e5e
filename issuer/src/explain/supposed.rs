//! An issuer that is only supposed: resources out of files, keys out of nowhere.

use std::time::SystemTime;

use identity::TrustDomain;
use prost::Message;
use proto::admin::v1 as pb;

use super::{Explanation, Question, explain};
use crate::{
    authority::{
        KeyState, Keyring, KeyringError, Lifecycle, Rotation, RotationError, keyfile::SealingKey,
    },
    catalog::Catalog,
    resources::{InvalidResource, wire},
};

/// Resources, and keys that sign nothing: enough to decide on.
#[derive(Debug)]
pub struct SupposedIssuer {
    catalog: Catalog,
    keyring: Keyring,
}

impl SupposedIssuer {
    /// An issuer that holds these resources. WIT-SVIDs are switched on.
    pub fn new(
        trust_domain: &TrustDomain,
        resources: Vec<pb::Resource>,
        now: SystemTime,
    ) -> Result<Self, SupposedError> {
        let mut catalog = Catalog::default();
        for resource in resources {
            let checked = wire::from_wire_in(trust_domain, resource)?;
            let content = wire::to_wire(&checked).encode_to_vec();
            let name = checked.metadata.name.as_str();
            catalog.put_resource(checked.kind(), name, 1, &content);
        }
        Ok(Self {
            catalog,
            keyring: keyring(trust_domain, now)?,
        })
    }

    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Catalog, Keyring) {
        (self.catalog, self.keyring)
    }

    /// What it would decide.
    pub fn explain(&self, question: &Question, now: SystemTime) -> Explanation {
        explain(&self.catalog, &self.keyring, question, now)
    }
}

/// Keys that nobody has ever had.
fn keyring(trust_domain: &TrustDomain, now: SystemTime) -> Result<Keyring, SupposedError> {
    let lifecycle = Lifecycle {
        wit: true,
        ..Lifecycle::default()
    };
    let sealing = SealingKey::ephemeral().map_err(RotationError::from)?;
    let rotation = Rotation {
        trust_domain,
        sealing: &sealing,
        lifecycle,
        user: "",
        now,
    };
    let keys = lifecycle
        .uses()
        .map(|key_use| rotation.make(key_use, KeyState::Active))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Keyring::open(trust_domain, &keys, &sealing, lifecycle, 1)?)
}

/// Why there is no such issuer.
#[derive(Debug, thiserror::Error)]
pub enum SupposedError {
    /// A resource is not right.
    #[error(transparent)]
    Resource(#[from] InvalidResource),
    /// Keys cannot be made.
    #[error(transparent)]
    Keys(#[from] RotationError),
    /// They make no keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}
