//! X.509 authorities, read once: what path validation and the bundle document need.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use serde_json::{Map, Value};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::BundleError;
use crate::{
    TrustDomain,
    certificate::{self, CaFacts},
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

/// `kty` and its members for the certificate's key (RFC 7518 6.2, 6.3; RFC 8037 2).
fn jwk(certificate: &X509Certificate<'_>) -> Result<Map<String, Value>, String> {
    let spki = certificate.public_key();
    let members = match spki.parsed() {
        Ok(PublicKey::EC(point)) => ec_members(spki, point.data()),
        Ok(PublicKey::RSA(key)) => Some(vec![
            ("kty", "RSA".to_owned()),
            ("n", unsigned(key.modulus)),
            ("e", unsigned(key.exponent)),
        ]),
        _ if spki.algorithm.algorithm == OID_SIG_ED25519 => Some(vec![
            ("kty", "OKP".to_owned()),
            ("crv", "Ed25519".to_owned()),
            ("x", URL_SAFE_NO_PAD.encode(&spki.subject_public_key.data)),
        ]),
        _ => None,
    };
    let members = members.ok_or_else(|| {
        "its key is none of RSA, EC P-256, P-384, P-521 (uncompressed) and Ed25519".to_owned()
    })?;
    Ok(members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect())
}

fn ec_members(
    spki: &SubjectPublicKeyInfo<'_>,
    point: &[u8],
) -> Option<Vec<(&'static str, String)>> {
    const UNCOMPRESSED: u8 = 4;
    let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let (name, bytes) = if curve == OID_EC_P256 {
        ("P-256", 32)
    } else if curve == OID_NIST_EC_P384 {
        ("P-384", 48)
    } else if curve == OID_NIST_EC_P521 {
        ("P-521", 66)
    } else {
        return None;
    };
    let (form, coordinates) = point.split_first()?;
    if *form != UNCOMPRESSED || coordinates.len() != 2 * bytes {
        return None;
    }
    let (x, y) = coordinates.split_at(bytes);
    Some(vec![
        ("kty", "EC".to_owned()),
        ("crv", name.to_owned()),
        ("x", URL_SAFE_NO_PAD.encode(x)),
        ("y", URL_SAFE_NO_PAD.encode(y)),
    ])
}

/// Base64url of a big-endian number without leading zeros (RFC 7518 2, "Base64urlUInt").
fn unsigned(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    URL_SAFE_NO_PAD.encode(&bytes[zeros..])
}
