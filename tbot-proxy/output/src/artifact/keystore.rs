//! Keystores of Java: PKCS#12, and JKS for what is older than Java 9.
//!
//! The private key has the alias [`KEY_ALIAS`]. A trust store has one entry an authority,
//! its alias the trust domain and a number. Key and store have one password, as Java's
//! own tools expect of PKCS#12.

use std::{fmt, time::SystemTime};

use identity::X509Svid;
use p12_keystore::{
    Certificate, KeyStore, KeyStoreEntry, Pkcs12ImportPolicy, PrivateKey, PrivateKeyChain,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

mod jks;

/// Alias of the private key.
pub const KEY_ALIAS: &str = "svid";

/// Fewest characters of a password; Java's keytool takes no shorter one.
const SHORTEST: usize = 6;

/// Password of keystores. Wiped when dropped, hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// `text` without the line end at its end: files have one.
    ///
    /// # Errors
    ///
    /// Fewer than six characters, or one outside of ASCII, which Java and others encode differently.
    pub fn new(text: Zeroizing<String>) -> Result<Self, KeystoreError> {
        let trimmed = text.trim_end_matches(['\n', '\r']);
        if trimmed.chars().count() < SHORTEST {
            return Err(KeystoreError::ShortPassword);
        }
        if !trimmed.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(KeystoreError::PasswordCharacter);
        }
        Ok(Self(Zeroizing::new(trimmed.to_owned())))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// An authority in a trust store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedCertificate<'a> {
    /// Its name there.
    pub alias: String,
    /// The certificate, DER.
    pub der: &'a [u8],
}

/// Key and chain, PKCS#12.
pub(super) fn pkcs12_keys(
    svid: &X509Svid,
    Password(password): &Password,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let certificates: Result<Vec<_>, _> = svid
        .chain()
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect();
    let key = PrivateKey::from_der(svid.key_pkcs8_der()).map_err(pkcs12)?;
    let chain = PrivateKeyChain::new(KEY_ALIAS, key, certificates.map_err(pkcs12)?);
    let mut store = KeyStore::new();
    store.add_entry(KEY_ALIAS, KeyStoreEntry::PrivateKeyChain(chain));
    store
        .writer(password)
        .write()
        .map(Zeroizing::new)
        .map_err(pkcs12)
}

/// Authorities, PKCS#12, marked as trusted for Java.
pub(super) fn pkcs12_trust(
    trusted: &[TrustedCertificate<'_>],
    Password(password): &Password,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let mut store = KeyStore::new();
    for entry in trusted {
        let certificate = Certificate::from_der(entry.der).map_err(pkcs12)?;
        store.add_entry(&entry.alias, KeyStoreEntry::Certificate(certificate));
    }
    store
        .writer(password)
        .write()
        .map(Zeroizing::new)
        .map_err(pkcs12)
}

/// Key and chain, JKS.
pub(super) fn jks_keys(
    svid: &X509Svid,
    Password(password): &Password,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let mut store = jks::Writer::new(password, 1)?;
    store.key(
        KEY_ALIAS,
        svid.not_before(),
        svid.key_pkcs8_der(),
        svid.chain(),
    )?;
    Ok(store.finish())
}

/// Authorities, JKS.
pub(super) fn jks_trust(
    trusted: &[TrustedCertificate<'_>],
    at: SystemTime,
    Password(password): &Password,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let mut store = jks::Writer::new(password, trusted.len())?;
    for entry in trusted {
        store.trusted(&entry.alias, at, entry.der)?;
    }
    Ok(store.finish())
}

/// The leaf of the key's chain in a PKCS#12 store that this password opens.
pub(super) fn pkcs12_leaf(
    store: &[u8],
    Password(password): &Password,
) -> Option<CertificateDer<'static>> {
    let store = KeyStore::from_pkcs12(store, password, Pkcs12ImportPolicy::Strict).ok()?;
    let (_, chain) = store.private_key_chain()?;
    let leaf = chain.certs().first()?.as_der();
    Some(CertificateDer::from(leaf.to_vec()))
}

/// The leaf of the first key's chain in a JKS store: certificates lie open in it.
pub(super) fn jks_leaf(store: &[u8]) -> Option<CertificateDer<'static>> {
    Some(CertificateDer::from(jks::leaf(store)?.to_vec()))
}

fn pkcs12(error: p12_keystore::error::Error) -> KeystoreError {
    KeystoreError::Pkcs12(error.to_string())
}

/// Why there is no keystore.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// A keystore without a password.
    #[error("keystore: there is no password: set `keystore_password`")]
    NoPassword,
    /// Java would not open it.
    #[error("keystore: the password has fewer than {SHORTEST} characters, which Java refuses")]
    ShortPassword,
    /// Not every program encodes it alike.
    #[error(
        "keystore: the password has a character that is not printable ASCII, which Java cannot read"
    )]
    PasswordCharacter,
    /// Key or certificate cannot be encoded.
    #[error("keystore: PKCS#12: {0}")]
    Pkcs12(String),
    /// Something is longer than the format can say.
    #[error("keystore: JKS: {0} is too long")]
    TooLong(&'static str),
    /// No random bytes.
    #[error("keystore: the system has no random bytes")]
    Random,
}
