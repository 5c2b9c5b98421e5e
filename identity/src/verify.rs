//! Verification of a peer's chain, with a cache of verified chains.
//!
//! [`ChainVerifier::verify`] answers one question: who presents this chain, *now*, as far
//! as these bundles vouch. It applies the leaf rules of X509-SVID 5.2 and RFC 5280 path
//! validation with the authorities of the leaf's own trust domain and no other (X5-22).
//! That the peer holds the leaf's key is proven by the handshake, never here.
//!
//! A verified chain is remembered together with the generation of the bundles, so a change
//! of any authority or revocation list makes every entry worthless at once, and with the
//! span in which all its certificates are valid, which is compared with `now` on every
//! hit. Failed chains are not remembered: strangers cannot fill the cache.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls_pki_types::CertificateDer;

use crate::{
    Serial, SpiffeId, TrustBundleSet,
    svid::{Leaf, MAX_CHAIN},
};

mod cache;
mod error;
pub(crate) mod path;

use cache::Cache;
pub use error::VerifyError;

/// Who the peer is, proven by its chain at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// SPIFFE ID in its leaf.
    pub id: SpiffeId,
    /// The chain that was verified: leaf first, then the intermediates as sent. Shared with the cache.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// Serial number of its leaf.
    pub serial: Serial,
    /// Earliest end of validity in the verified path (leaf, intermediates, authority).
    pub not_after: SystemTime,
    /// SHA-256 of the leaf.
    pub leaf_sha256: [u8; 32],
}

/// How often the cache answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifierStats {
    /// Answers from the cache: no certificate was parsed, no signature checked.
    pub hits: u64,
    /// Full verifications, failed ones included.
    pub misses: u64,
    /// Chains remembered now.
    pub entries: usize,
}

/// Verifies chains (RFC 5280 path validation and the X509-SVID rules); remembers a fixed number of verified ones.
#[derive(Debug)]
pub struct ChainVerifier {
    cache: Cache,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl ChainVerifier {
    /// With room for `capacity` chains; 0 remembers none. Some 200 bytes and the
    /// chain itself for each, taken as chains come.
    pub fn new(capacity: usize) -> Self {
        Self {
            cache: Cache::new(capacity),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Verifies `chain` (leaf first) against `bundles`, which are those of `generation`.
    ///
    /// A generation must stand for one value of `bundles` as long as this verifier lives;
    /// those of [`crate::Identity`] do.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        bundles: &TrustBundleSet,
        generation: u64,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(VerifyError::NoCertificate);
        };
        self.verify_parts(leaf, intermediates, bundles, generation, now)
    }

    /// As [`Self::verify`], with the leaf apart, as rustls hands it out.
    pub(crate) fn verify_parts(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        bundles: &TrustBundleSet,
        generation: u64,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(VerifyError::ChainTooLong {
                certificates: intermediates.len() + 1,
            });
        }
        let key = cache_key(leaf, intermediates, generation);
        if let Some(peer) = self.cache.get(&key, now) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(peer);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let (peer, window) = verify_chain(leaf, intermediates, bundles, now)?;
        self.cache.insert(key, peer.clone(), window);
        Ok(peer)
    }

    /// How often the cache answered so far.
    pub fn stats(&self) -> VerifierStats {
        VerifierStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.cache.len(),
        }
    }
}

/// The whole verification, without any memory.
fn verify_chain(
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundles: &TrustBundleSet,
    now: SystemTime,
) -> Result<(PeerIdentity, crate::certificate::Window), VerifyError> {
    let leaf = Leaf::parse(leaf_der).map_err(VerifyError::Leaf)?;
    let Some(bundle) = bundles.get(leaf.id().trust_domain_name()) else {
        return Err(VerifyError::NoBundle {
            id: leaf.id().clone(),
        });
    };
    let window = path::verify(leaf_der, &leaf, intermediates, bundle, now)?;
    let peer = peer_identity(leaf_der, &leaf, intermediates, window.not_after);
    Ok((peer, window))
}

pub(crate) fn peer_identity(
    leaf_der: &CertificateDer<'_>,
    leaf: &Leaf,
    intermediates: &[CertificateDer<'_>],
    not_after: SystemTime,
) -> PeerIdentity {
    let chain = std::iter::once(leaf_der).chain(intermediates);
    PeerIdentity {
        id: leaf.id().clone(),
        chain: chain.map(|der| der.clone().into_owned()).collect(),
        serial: leaf.serial().clone(),
        not_after,
        leaf_sha256: sha256(leaf_der),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_array(digest(&SHA256, bytes).as_ref())
}

/// Each certificate goes in behind its length, so that no two chains read the same.
fn cache_key(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    generation: u64,
) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&generation.to_be_bytes());
    for der in std::iter::once(leaf).chain(intermediates) {
        context.update(&(der.len() as u64).to_be_bytes());
        context.update(der);
    }
    to_array(context.finish().as_ref())
}

fn to_array(digest: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest);
    bytes
}

#[cfg(test)]
mod tests;
