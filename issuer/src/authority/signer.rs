//! Keys that sign certificates.

use std::time::Instant;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use der::oid::ObjectIdentifier;
use spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A key that signs certificates, wherever it lives (memory now; a KMS or an
/// HSM fits behind the same three questions).
pub trait CertSigner: Send + Sync {
    /// SubjectPublicKeyInfo, DER.
    fn public_key_der(&self) -> &[u8];
    /// What certificates name as their signature algorithm.
    fn algorithm(&self) -> AlgorithmIdentifierOwned;
    /// Signs `message` (hashing it first); the signature as X.509 wants it.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// An ECDSA P-256 key in this process. aws-lc wipes it when it is dropped.
pub struct EcdsaP256Signer {
    key: EcdsaKeyPair,
    public_key_der: Vec<u8>,
    random: SystemRandom,
}

impl EcdsaP256Signer {
    /// A new key, and its PKCS#8 form.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), SignError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| SignError)?;
        let document = key.to_pkcs8v1().map_err(|_| SignError)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::new(key)?, pkcs8))
    }

    /// A key from its PKCS#8 form.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SignError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| SignError)
            .and_then(Self::new)
    }

    fn new(key: EcdsaKeyPair) -> Result<Self, SignError> {
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| SignError)?;
        Ok(Self {
            public_key_der: der.as_ref().to_vec(),
            key,
            random: SystemRandom::new(),
        })
    }
}

impl CertSigner for EcdsaP256Signer {
    fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    fn algorithm(&self) -> AlgorithmIdentifierOwned {
        AlgorithmIdentifierOwned {
            oid: ECDSA_WITH_SHA256,
            parameters: None,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.key
            .sign(&self.random, message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| SignError)
    }
}

/// Signs, and tells how long that took.
pub(super) fn timed<T>(r#type: &'static str, sign: impl FnOnce() -> T) -> T {
    let _span = tracing::debug_span!("sign", r#type).entered();
    let begun = Instant::now();
    let signed = sign();
    metrics::histogram!("issuer_sign_duration_seconds", "type" => r#type)
        .record(begun.elapsed().as_secs_f64());
    signed
}

/// The key could not be made, read or used. (The cryptographic library gives no
/// reason, on purpose.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library refused to make, read or use the signing key")]
pub struct SignError;
