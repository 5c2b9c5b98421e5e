//! Keys that sign tokens and checkpoints: ES256 and RS256.

use std::{fmt, time::SystemTime};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use identity::{Algorithm, Jwk, KeyAuthority};
use zeroize::Zeroizing;

use super::{AuthorityError, KeyUse, SignError};
use crate::store::audit::signing::HeadSigner;

/// A key that signs tokens (or checkpoints), in this process. aws-lc wipes it when it
/// is dropped.
pub struct TokenKey {
    pair: Pair,
    public: Jwk,
    key_id: String,
    not_after: SystemTime,
    random: SystemRandom,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
}

impl TokenKey {
    /// A new key for this use (which is not [`KeyUse::X509`]), and its PKCS#8 form.
    pub fn generate(
        key_use: KeyUse,
        not_after: SystemTime,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), AuthorityError> {
        let pkcs8 = match key_use {
            KeyUse::JwtRs256 => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(|_| SignError)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| SignError)?;
                Zeroizing::new(der.as_ref().to_vec())
            }
            _ => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                    .map_err(|_| SignError)?;
                let document = pair.to_pkcs8v1().map_err(|_| SignError)?;
                Zeroizing::new(document.as_ref().to_vec())
            }
        };
        Ok((Self::load(key_use, &pkcs8, not_after)?, pkcs8))
    }

    /// A key from its PKCS#8 form.
    pub fn load(
        key_use: KeyUse,
        pkcs8: &[u8],
        not_after: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (pair, spki) = match key_use {
            KeyUse::JwtRs256 => {
                let pair = rsa::KeyPair::from_pkcs8(pkcs8).map_err(|_| SignError)?;
                let der: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| SignError)?;
                let spki = der.as_ref().to_vec();
                (Pair::Rs256(pair), spki)
            }
            _ => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
                    .map_err(|_| SignError)?;
                let der: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| SignError)?;
                let spki = der.as_ref().to_vec();
                (Pair::Es256(pair), spki)
            }
        };
        let public = Jwk::from_spki(&spki).ok_or(SignError)?;
        Ok(Self {
            key_id: public.thumbprint(),
            pair,
            public,
            not_after,
            random: SystemRandom::new(),
        })
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Es256(_) => Algorithm::Es256,
            Pair::Rs256(_) => Algorithm::Rs256,
        }
    }

    /// Its public key.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// `kid`: the RFC 7638 thumbprint of the public key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Nothing that it signs is valid after this.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// As it stands in the trust bundle.
    pub fn authority(&self) -> KeyAuthority {
        KeyAuthority::new(self.public.clone(), &self.key_id)
    }

    /// Signs `message`; the signature as JWS has it (of ES256: R and S, 32 bytes each).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.pair {
            Pair::Es256(pair) => pair
                .sign(&self.random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(|_| SignError)?;
                Ok(signature)
            }
        }
    }
}

impl HeadSigner for TokenKey {
    fn key_id(&self) -> String {
        self.key_id.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Self::sign(self, message).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}
