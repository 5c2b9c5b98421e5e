//! Trust bundles: the authorities of a trust domain, and sets of them.
//!
//! A [`TrustBundle`] never leaves its trust domain's name (TB-12): verification is given a
//! [`TrustBundleSet`] and picks the bundle of the SVID's own trust domain, so an authority
//! of one domain cannot vouch for another. A bundle without X.509 authorities is a
//! statement (TB-07, X5-33): every X509-SVID of that domain is untrusted.
//!
//! Everything that verification needs of an authority is read once, here. Keys for JWT-
//! and WIT-SVIDs are kept as the JSON they came in, so that reading and writing a document
//! loses nothing that the standard defines.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};

use crate::{TrustDomain, certificate};

mod authority;
mod crl;
mod document;
mod error;

pub(crate) use authority::Authorities;
pub(crate) use crl::Crl;
pub use document::KeyAuthority;
pub use error::BundleError;

/// The authorities of one trust domain.
#[derive(Clone)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Arc<Authorities>,
    jwt: Vec<KeyAuthority>,
    wit: Vec<KeyAuthority>,
    crls: Vec<Crl>,
    crl_ders: Vec<CertificateRevocationListDer<'static>>,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
}

impl TrustBundle {
    /// A bundle of X.509 authorities; none at all is allowed, the same one twice counts once.
    ///
    /// Errors: a certificate that cannot be read or is not a CA's, or a key of a kind that
    /// has no JWK form here (RSA, EC P-256/P-384/P-521 and Ed25519 have).
    pub fn new(
        trust_domain: TrustDomain,
        x509_authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let authorities = Authorities::new(&trust_domain, x509_authorities)?;
        Ok(Self {
            trust_domain,
            authorities: Arc::new(authorities),
            jwt: Vec::new(),
            wit: Vec::new(),
            crls: Vec::new(),
            crl_ders: Vec::new(),
            sequence: None,
            refresh_hint: None,
        })
    }

    /// Reads a SPIFFE bundle document (SPIFFE Trust Domain and Bundle 4).
    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        document::read(trust_domain, json)
    }

    /// Reads concatenated PEM certificates, at least one.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let authorities = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| BundleError::Pem {
                trust_domain: trust_domain.clone(),
                reason: error.to_string(),
            })?;
        if authorities.is_empty() {
            return Err(BundleError::Pem {
                trust_domain,
                reason: "there is no CERTIFICATE section".to_owned(),
            });
        }
        Self::new(trust_domain, authorities)
    }

    /// Writes a SPIFFE bundle document.
    pub fn to_spiffe_json(&self) -> Vec<u8> {
        document::write(self)
    }

    /// PEM of the X.509 authorities, concatenated.
    pub fn to_pem(&self) -> String {
        certificate::certificates_pem(self.x509_authorities())
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// CA certificates.
    pub fn x509_authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities.certificates
    }

    /// Keys that sign JWT-SVIDs (`use` = `jwt-svid`), as they were read.
    pub fn jwt_authorities(&self) -> &[KeyAuthority] {
        &self.jwt
    }

    /// Keys that sign WIT-SVIDs (`use` = `wit-svid`), as they were read.
    pub fn wit_authorities(&self) -> &[KeyAuthority] {
        &self.wit
    }

    /// Revocation lists that verification honours.
    pub fn crls(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.crl_ders
    }

    /// `spiffe_sequence`.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `spiffe_refresh_hint`.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// With this sequence number.
    pub fn with_sequence(mut self, sequence: u64) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// With this refresh hint (whole seconds; a fraction is cut off).
    pub fn with_refresh_hint(mut self, hint: Duration) -> Self {
        self.refresh_hint = Some(Duration::from_secs(hint.as_secs()));
        self
    }

    /// With these JWT authorities in place of the present ones.
    pub fn with_jwt_authorities(mut self, authorities: Vec<KeyAuthority>) -> Self {
        self.jwt = authorities;
        self
    }

    /// With these WIT authorities in place of the present ones. A `kid` is unique over both
    /// kinds (WI-17); our keys have their thumbprint there, which makes it so.
    pub fn with_wit_authorities(mut self, authorities: Vec<KeyAuthority>) -> Self {
        self.wit = authorities;
        self
    }

    /// The JWT authorities as a plain JWK Set: no keys of other uses (WA-24), and no `use`,
    /// which stock JWT libraries would not know (SPIRE leaves it out too).
    pub fn to_jwks_for_jwt(&self) -> Vec<u8> {
        document::jwks(&self.jwt)
    }

    /// The WIT authorities as a plain JWK Set (WA-29).
    pub fn to_jwks_for_wit(&self) -> Vec<u8> {
        document::jwks(&self.wit)
    }

    /// With these revocation lists in place of the present ones.
    ///
    /// A certificate whose issuer has no list here passes; one on a list is refused. A list
    /// past its `nextUpdate` still counts: what it revokes stays revoked. Lists are not part
    /// of the SPIFFE bundle document.
    pub fn with_crls(
        mut self,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, BundleError> {
        self.crls = crls
            .iter()
            .enumerate()
            .map(|(index, der)| {
                Crl::new(der, &self.authorities).map_err(|reason| BundleError::Crl {
                    trust_domain: self.trust_domain.clone(),
                    index,
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        self.crl_ders = crls;
        Ok(self)
    }

    pub(crate) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    pub(crate) fn parsed_crls(&self) -> &[Crl] {
        &self.crls
    }
}

impl PartialEq for TrustBundle {
    // What is compared determines what is left out.
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain
            && self.sequence == other.sequence
            && self.refresh_hint == other.refresh_hint
            && self.x509_authorities() == other.x509_authorities()
            && self.jwt == other.jwt
            && self.wit == other.wit
            && self.crl_ders == other.crl_ders
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain.as_str())
            .field("x509_authorities", &self.x509_authorities().len())
            .field("jwt_authorities", &self.jwt.len())
            .field("wit_authorities", &self.wit.len())
            .field("crls", &self.crl_ders.len())
            .field("sequence", &self.sequence)
            .field("refresh_hint", &self.refresh_hint)
            .finish_non_exhaustive()
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
        Self {
            bundles: bundles
                .into_iter()
                .map(|bundle| (bundle.trust_domain.clone(), Arc::new(bundle)))
                .collect(),
        }
    }

    /// The bundle of a trust domain.
    pub fn get(&self, trust_domain: &str) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(trust_domain)
    }

    /// All, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.bundles.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }

    /// Reads a bundle map (`trust_domains`); all of it or nothing (TB-13, TB-14, TB-16).
    pub fn from_map_json(json: &[u8]) -> Result<Self, BundleError> {
        document::read_map(json)
    }

    /// Writes a bundle map. Refresh hints stay out of it (TB-15).
    pub fn to_map_json(&self) -> Vec<u8> {
        document::write_map(self)
    }
}

#[cfg(test)]
mod tests;
