//! Private keys of SVIDs: read in the usual encodings, kept as PKCS#8, never shown.

use aws_lc_rs::{
    encoding::AsDer,
    rsa,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    },
};
use rustls::{
    Error as RustlsError, InconsistentKeys, crypto::aws_lc_rs::sign::any_supported_type,
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{self, PemObject},
};
use zeroize::{Zeroize, Zeroizing};

use super::SvidError;
use crate::SpiffeId;

/// The first private key in PEM text.
pub(super) fn from_pem(text: &[u8]) -> Result<PrivateKeyDer<'static>, SvidError> {
    const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        // The parser's own message may quote a line of the key.
        let reason = match error {
            pem::Error::NoItemsFound
                if text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) =>
            {
                "it is encrypted"
            }
            pem::Error::NoItemsFound => "there is no PRIVATE KEY section",
            pem::Error::MissingSectionEnd { .. } => "its END line is missing",
            pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed",
            pem::Error::Base64Decode(_) => "its base64 is malformed",
            _ => "it is not PEM",
        };
        SvidError::KeyPem { reason }
    })
}

/// The key as PKCS#8; the input is wiped.
pub(super) fn to_pkcs8(mut key: PrivateKeyDer<'static>) -> Result<Zeroizing<Vec<u8>>, SvidError> {
    let pkcs8 = match &key {
        PrivateKeyDer::Pkcs8(key) => Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        PrivateKeyDer::Sec1(key) => ec_to_pkcs8(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs1(key) => rsa_to_pkcs8(key.secret_pkcs1_der()),
        _ => Err(SvidError::Key {
            reason: "its encoding is none of PKCS#8, SEC1 and PKCS#1",
        }),
    };
    key.zeroize();
    pkcs8
}

fn ec_to_pkcs8(sec1: &[u8]) -> Result<Zeroizing<Vec<u8>>, SvidError> {
    [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
        &ECDSA_P521_SHA512_ASN1_SIGNING,
    ]
    .into_iter()
    .find_map(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, sec1).ok())
    .and_then(|pair| pair.to_pkcs8v1().ok())
    .map(|document| Zeroizing::new(document.as_ref().to_vec()))
    .ok_or(SvidError::Key {
        reason: "it is not a SEC1 key on P-256, P-384 or P-521",
    })
}

fn rsa_to_pkcs8(pkcs1: &[u8]) -> Result<Zeroizing<Vec<u8>>, SvidError> {
    rsa::KeyPair::from_der(pkcs1)
        .ok()
        .and_then(|pair| AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).ok())
        .map(|document| Zeroizing::new(document.as_ref().to_vec()))
        .ok_or(SvidError::Key {
            reason: "it is not a PKCS#1 RSA key of 2048 to 8192 bits",
        })
}

/// Chain and key for rustls, once it is known that they belong together.
pub(super) fn certify(
    chain: Vec<CertificateDer<'static>>,
    pkcs8: &[u8],
    id: &SpiffeId,
) -> Result<CertifiedKey, SvidError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let signer = any_supported_type(&key).map_err(|_| SvidError::Key {
        reason: "it is not an unencrypted ECDSA (P-256, P-384, P-521), Ed25519 or RSA key",
    })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(SvidError::KeyMismatch { id: id.clone() })
        }
        Err(_) => Err(SvidError::Key {
            reason: "its public key cannot be compared with the leaf's",
        }),
    }
}
