//! Verification of a peer's chain, with a cache of verified chains.
use crate::{Serial, SpiffeId, TrustBundleSet};
use rustls_pki_types::CertificateDer;
use std::time::SystemTime;

/// Who the peer is, proven by its chain at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// SPIFFE ID in its leaf.
    pub id: SpiffeId,
    /// Serial number of its leaf.
    pub serial: Serial,
    /// Earliest end of validity in the verified path (leaf, intermediates, authority).
    pub not_after: SystemTime,
    /// SHA-256 of the leaf.
    pub leaf_sha256: [u8; 32],
}

/// Verifies chains (RFC 5280 path validation and the X509-SVID rules); remembers a fixed number of verified ones.
#[derive(Debug)]
pub struct ChainVerifier {
    _private: (),
}
impl ChainVerifier {
    /// With room for `capacity` chains.
    pub fn new(capacity: usize) -> Self {
        let _ = capacity;
        unimplemented!()
    }
    /// Verifies `chain` (leaf first) against `bundles`, which are those of `generation`.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        bundles: &TrustBundleSet,
        generation: u64,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        let _ = (chain, bundles, generation, now);
        unimplemented!()
    }
}

/// Why a peer's chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// stub
    #[error("stub")]
    Stub,
}
