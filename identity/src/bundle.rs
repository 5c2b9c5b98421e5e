//! Trust bundles.
use crate::TrustDomain;
use rustls_pki_types::CertificateDer;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The authorities of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    _private: (),
}
impl TrustBundle {
    /// A bundle of X.509 authorities.
    pub fn new(
        trust_domain: TrustDomain,
        x509_authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let _ = (trust_domain, x509_authorities);
        unimplemented!()
    }
    /// Reads a SPIFFE bundle document.
    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, json);
        unimplemented!()
    }
    /// Reads concatenated PEM certificates.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, pem);
        unimplemented!()
    }
    /// Writes a SPIFFE bundle document.
    pub fn to_spiffe_json(&self) -> Vec<u8> {
        unimplemented!()
    }
    /// PEM of the X.509 authorities, concatenated.
    pub fn to_pem(&self) -> String {
        unimplemented!()
    }
    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        unimplemented!()
    }
    /// CA certificates.
    pub fn x509_authorities(&self) -> &[CertificateDer<'static>] {
        unimplemented!()
    }
    /// `spiffe_sequence`.
    pub fn sequence(&self) -> Option<u64> {
        unimplemented!()
    }
    /// `spiffe_refresh_hint`.
    pub fn refresh_hint(&self) -> Option<Duration> {
        unimplemented!()
    }
    /// With this sequence number.
    pub fn with_sequence(self, sequence: u64) -> Self {
        let _ = sequence;
        unimplemented!()
    }
    /// With this refresh hint (whole seconds).
    pub fn with_refresh_hint(self, hint: Duration) -> Self {
        let _ = hint;
        unimplemented!()
    }
}

/// Trust bundles by trust domain. Immutable; share it by `Arc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundleSet {
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
}
impl TrustBundleSet {
    /// From bundles; a second one of a trust domain replaces the first.
    pub fn new(bundles: impl IntoIterator<Item = TrustBundle>) -> Self {
        let _ = bundles.into_iter();
        unimplemented!()
    }
    /// The bundle of a trust domain.
    pub fn get(&self, trust_domain: &str) -> Option<&Arc<TrustBundle>> {
        let _ = trust_domain;
        unimplemented!()
    }
    /// All, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.bundles.values()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }
    /// Reads a bundle map (`trust_domains`).
    pub fn from_map_json(json: &[u8]) -> Result<Self, BundleError> {
        let _ = json;
        unimplemented!()
    }
    /// Writes a bundle map.
    pub fn to_map_json(&self) -> Vec<u8> {
        unimplemented!()
    }
}

/// Why a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// stub
    #[error("stub")]
    Stub,
}
