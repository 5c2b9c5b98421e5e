//! Intake of certificate requests: of a PKCS#10 request only the public key is
//! taken, after its self-signature proved possession of the private one. Names
//! and extensions in it are ignored.
//!
//! Accepted keys: ECDSA P-256 and P-384 (points not compressed), RSA of 2048 to 8192
//! bits, Ed25519 (for who knows that its peers can use it: many TLS stacks cannot).

use std::fmt;

use aws_lc_rs::digest;
use der::oid::ObjectIdentifier;
use spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Far above any honest request (8192-bit RSA takes 2.3 kB).
const CSR_MAX: usize = 16 * 1024;

/// What kind of key it is, as far as certificates differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 or P-384.
    Ec,
    /// RSA.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// A public key whose holder proved to have the private one.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectKey {
    kind: KeyKind,
    spki_der: Vec<u8>,
    sha256: [u8; 32],
}

impl SubjectKey {
    /// Takes the key of a self-signed PKCS#10 request (DER).
    pub fn from_csr(csr: &[u8]) -> Result<Self, CsrError> {
        if csr.is_empty() {
            return Err(CsrError::Absent);
        }
        if csr.len() > CSR_MAX {
            return Err(CsrError::TooLong(csr.len()));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(csr).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let spki_der = request.certification_request_info.subject_pki.raw;
        let kind = check_key(spki_der)?;
        request
            .verify_signature()
            .map_err(|_| CsrError::Signature)?;
        Ok(Self::new(kind, spki_der))
    }

    /// An ECDSA key that this process made itself.
    pub fn from_own_key(spki_der: &[u8]) -> Self {
        Self::new(KeyKind::Ec, spki_der)
    }

    fn new(kind: KeyKind, spki_der: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, spki_der).as_ref());
        Self {
            kind,
            spki_der: spki_der.to_vec(),
            sha256,
        }
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key as a JWK, for the `cnf` of a WIT-SVID; Ed25519 has no algorithm there.
    pub fn jwk(&self) -> Option<identity::Jwk> {
        identity::Jwk::from_spki(&self.spki_der)
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey(sha256:{})", hex::encode(self.sha256))
    }
}

fn check_key(spki_der: &[u8]) -> Result<KeyKind, CsrError> {
    let spki = SubjectPublicKeyInfoRef::try_from(spki_der).map_err(|_| CsrError::Malformed)?;
    // The key must survive our own encoder unchanged: the certificate is to
    // hold the very key that was proven.
    let owned = SubjectPublicKeyInfoOwned::try_from(spki_der).map_err(|_| CsrError::Malformed)?;
    if der::Encode::to_der(&owned).ok().as_deref() != Some(spki_der) {
        return Err(CsrError::Malformed);
    }
    if spki.algorithm.oid == EC_PUBLIC_KEY {
        let curve = spki.algorithm.parameters_oid().ok();
        // Compressed points are read by few (Go's x509 does not).
        let is_uncompressed = spki.subject_public_key.raw_bytes().first() == Some(&4);
        if (curve == Some(P256) || curve == Some(P384)) && is_uncompressed {
            return Ok(KeyKind::Ec);
        }
    } else if spki.algorithm.oid == RSA {
        let bits = rsa_modulus_bits(spki.subject_public_key.raw_bytes())?;
        if (2048..=8192).contains(&bits) {
            return Ok(KeyKind::Rsa);
        }
        return Err(CsrError::RsaSize(bits));
    } else if spki.algorithm.oid == ED25519 && spki.algorithm.parameters.is_none() {
        return Ok(KeyKind::Ed25519);
    }
    Err(CsrError::KeyType)
}

fn rsa_modulus_bits(public_key: &[u8]) -> Result<usize, CsrError> {
    let (_, sequence) =
        x509_parser::der_parser::parse_der(public_key).map_err(|_| CsrError::Malformed)?;
    let modulus = sequence
        .as_sequence()
        .ok()
        .and_then(|fields| fields.first())
        .and_then(|modulus| modulus.as_slice().ok())
        .ok_or(CsrError::Malformed)?;
    let significant = modulus.iter().position(|byte| *byte != 0);
    match significant {
        Some(at) => Ok((modulus.len() - at) * 8 - modulus[at].leading_zeros() as usize),
        None => Err(CsrError::Malformed),
    }
}

/// What is wrong with a certificate request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// There is none.
    #[error("there is no certificate request: send one, signed with its own key")]
    Absent,
    /// It is larger than any honest request.
    #[error("the certificate request has {0} bytes; at most {CSR_MAX} are accepted")]
    TooLong(usize),
    /// It is not PKCS#10 DER.
    #[error("the certificate request is not a DER PKCS#10 request")]
    Malformed,
    /// Its signature is not by its own key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// The key is of a kind that is not signed.
    #[error("the key is of an unsupported kind: use ECDSA P-256 or P-384, RSA, or Ed25519")]
    KeyType,
    /// The RSA key is too small or too large.
    #[error("the RSA key has {0} bits; 2048 to 8192 are accepted")]
    RsaSize(usize),
}
