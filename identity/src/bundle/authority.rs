//! X.509 authorities, read once: what path validation and the bundle document need.

use rustls_pki_types::{CertificateDer, TrustAnchor};
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;

use super::BundleError;
use crate::{
    TrustDomain,
    certificate::{self, CaFacts},
    jose::members_of,
};

/// The X.509 authorities of a bundle; all three lists run in step.
pub(crate) struct Authorities {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    pub(crate) details: Vec<Details>,
}

/// What a trust anchor does not hold but verification or the document wants.
pub(crate) struct Details {
    /// webpki takes an anchor at its word; validity and path length are ours to enforce.
    pub(crate) facts: CaFacts,
    /// `kty` and the members that belong to it.
    pub(crate) jwk: Map<String, Value>,
}

impl Authorities {
    pub(super) fn new(
        trust_domain: &TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut this = Self {
            certificates: Vec::with_capacity(certificates.len()),
            anchors: Vec::with_capacity(certificates.len()),
            details: Vec::with_capacity(certificates.len()),
        };
        for (index, certificate) in certificates.into_iter().enumerate() {
            if this.certificates.contains(&certificate) {
                continue;
            }
            this.push(certificate)
                .map_err(|reason| BundleError::Authority {
                    trust_domain: trust_domain.clone(),
                    index,
                    reason,
                })?;
        }
        Ok(this)
    }

    fn push(&mut self, der: CertificateDer<'static>) -> Result<(), String> {
        let parsed = certificate::parse(&der)?;
        let facts = CaFacts::of(&parsed)?;
        if !facts.is_ca {
            return Err("it is not a CA certificate (basicConstraints without cA)".to_owned());
        }
        if facts.key_cert_sign == Some(false) {
            return Err("its keyUsage lacks keyCertSign".to_owned());
        }
        let jwk = jwk(&parsed)?;
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| format!("it cannot be a trust anchor: {error}"))?
            .to_owned();
        self.anchors.push(anchor);
        self.details.push(Details { facts, jwk });
        self.certificates.push(der);
        Ok(())
    }
}

/// `kty` and its members for the certificate's key.
fn jwk(certificate: &X509Certificate<'_>) -> Result<Map<String, Value>, String> {
    members_of(certificate.public_key()).ok_or_else(|| {
        "its key is none of RSA, EC P-256, P-384, P-521 (uncompressed) and Ed25519".to_owned()
    })
}
