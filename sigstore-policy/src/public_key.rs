//! A key as authority: whoever has the private one may sign. No log is asked.

use sigstore_verify::{
    crypto::{KeyAlgorithm, SigningScheme, VerificationKey},
    types::{DerPublicKey, SignatureBytes, SignatureContent},
};

use crate::{ImageDigest, claim::Claim};

/// A public key, with each way in which tools sign with its like.
pub(crate) struct PublicKey(Vec<VerificationKey>);

impl PublicKey {
    /// Reads a PEM block `PUBLIC KEY` (SubjectPublicKeyInfo): RSA of 2,048 bits or more,
    /// ECDSA on P-256 or P-384, Ed25519.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let key = DerPublicKey::from_pem(pem)
            .map_err(|error| format!("it is no public key in PEM: {error}"))?;
        let algorithm = KeyAlgorithm::from_spki(&key)
            .map_err(|error| format!("it is no public key that is supported: {error}"))?;
        // cosign has hashed with SHA-256 whatever the key was; others follow the key's size.
        // RSA: PKCS #1 v1.5 only (RFC 8017, 8.2).
        let schemes: &[_] = match algorithm {
            KeyAlgorithm::EcdsaP256 => &[SigningScheme::EcdsaP256Sha256],
            KeyAlgorithm::EcdsaP384 => &[
                SigningScheme::EcdsaP384Sha384,
                SigningScheme::EcdsaP384Sha256,
            ],
            KeyAlgorithm::Ed25519 => &[SigningScheme::Ed25519],
            KeyAlgorithm::Rsa => &[SigningScheme::RsaPkcs1Sha256],
            _ => return Err("it is a key of a kind that is not supported".to_owned()),
        };
        if algorithm == KeyAlgorithm::Rsa && key.as_bytes().len() < RSA_2048 {
            return Err("it is an RSA key of less than 2,048 bits".to_owned());
        }
        let keys = schemes.iter().map(|scheme| {
            VerificationKey::from_spki_with_scheme(&key, *scheme).map_err(|error| error.to_string())
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Whether this key signed what is claimed.
    pub(crate) fn verify(&self, claim: &Claim<'_>) -> Result<(), String> {
        let verified = match (&claim.bundle.content, claim.simple_signing) {
            (SignatureContent::DsseEnvelope(envelope), None) => {
                self.over(&envelope.pae(), &envelope.signature.sig)
            }
            (SignatureContent::MessageSignature(signature), Some(signed)) => {
                self.over(signed, &signature.signature)
            }
            (SignatureContent::MessageSignature(signature), None) => {
                self.over_manifest(&claim.image, &signature.signature)
            }
            _ => false,
        };
        match verified {
            true => Ok(()),
            false => Err("it is not signed by the key of the policy".to_owned()),
        }
    }

    fn over(&self, signed: &[u8], signature: &SignatureBytes) -> bool {
        (self.0.iter()).any(|key| key.verify(signed, signature).is_ok())
    }

    /// Only the digest of the manifest is here: a signature over it can be verified if it
    /// was hashed with SHA-256 to be signed.
    fn over_manifest(&self, image: &ImageDigest, signature: &SignatureBytes) -> bool {
        let digest = image.to_sha256();
        (self.0.iter()).any(|key| key.verify_prehashed(digest.as_bytes(), signature).is_ok())
    }
}

/// Bytes that the SubjectPublicKeyInfo of an RSA key of 2,048 bits has at the least.
const RSA_2048: usize = 290;
