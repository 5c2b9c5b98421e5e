//! Keys that sign tokens for tests, well-formed or not.

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaSignatureEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{Algorithm, Jwk, KeyAuthority};

/// A key of one of the nine algorithms.
pub struct TokenSigner {
    algorithm: Algorithm,
    key: Key,
    public: Jwk,
    key_id: String,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(rsa::KeyPair, &'static RsaSignatureEncoding),
}

impl TokenSigner {
    /// A new one; its `kid` is the thumbprint.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(algorithm: Algorithm) -> Self {
        let rsa = |encoding| {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
            Key::Rsa(pair, encoding)
        };
        let ecdsa = |curve| Key::Ecdsa(EcdsaKeyPair::generate(curve).expect("a key"));
        let key = match algorithm {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Rs384 => rsa(&RSA_PKCS1_SHA384),
            Algorithm::Rs512 => rsa(&RSA_PKCS1_SHA512),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            Algorithm::Ps384 => rsa(&RSA_PSS_SHA384),
            Algorithm::Ps512 => rsa(&RSA_PSS_SHA512),
            Algorithm::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING),
        };
        let spki: PublicKeyX509Der<'_> = match &key {
            Key::Ecdsa(pair) => pair.public_key().as_der().expect("DER"),
            Key::Rsa(pair, _) => pair.public_key().as_der().expect("DER"),
        };
        let public = Jwk::from_spki(spki.as_ref()).expect("a JWK");
        Self {
            algorithm,
            key_id: public.thumbprint(),
            key,
            public,
        }
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its public key.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// `kid`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// As a bundle has it.
    pub fn authority(&self) -> KeyAuthority {
        KeyAuthority::new(self.public.clone(), &self.key_id)
    }

    /// The right header for this `typ`.
    pub fn header(&self, r#type: &str) -> Value {
        json!({"alg": self.algorithm.as_str(), "kid": self.key_id, "typ": r#type})
    }

    /// A compact token of exactly this header and these claims.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// Signs, as JWS wants it.
    ///
    /// # Panics
    /// If the key refuses.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).expect("a signature");
                signature.as_ref().to_vec()
            }
            Key::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .expect("a signature");
                signature
            }
        }
    }
}
