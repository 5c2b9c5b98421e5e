//! Who vouches for the newest audit event.

use std::{fmt, sync::Arc, time::SystemTime};

use identity::TrustDomain;

use crate::{
    audit::chain::{Hash, Head},
    store::{StoreError, head::HeadSignature, to_millis},
};

/// Signs the head of the audit chain, in each commit: it must not wait for
/// anything but the processor.
pub trait HeadSigner: Send + Sync + 'static {
    /// Names the key, as the store's `authorities` do.
    fn key_id(&self) -> String;

    /// Signs `message` (ES256: ECDSA P-256 with SHA-256; R and S, 32 bytes each). An error fails the commit: what cannot be vouched for is
    /// not recorded, so not granted.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// A signer and what it signs for.
pub(in crate::store) struct Signing {
    pub(in crate::store) trust_domain: TrustDomain,
    pub(in crate::store) signer: Arc<dyn HeadSigner>,
}

impl Signing {
    pub(in crate::store) fn sign(
        &self,
        sequence: u64,
        hash: &Hash,
        now: SystemTime,
    ) -> Result<HeadSignature, StoreError> {
        let head = Head {
            trust_domain: self.trust_domain.as_str().to_owned(),
            sequence,
            hash: *hash,
            time_ms: to_millis(now),
        };
        let signature = self.signer.sign(&head.message()).map_err(|why| {
            StoreError::Unavailable(format!("the audit trail cannot be signed: {why}"))
        })?;
        Ok(HeadSignature {
            key_id: self.signer.key_id(),
            time: now,
            signature,
        })
    }
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing")
            .field("key_id", &self.signer.key_id())
            .finish_non_exhaustive()
    }
}
