//! X509-SVIDs: a chain, its private key, and what the leaf says.
//!
//! An [`X509Svid`] exists only if every peer that follows the standard will accept it as
//! far as that can be told without a trust bundle: [`X509Svid::new`] applies the rules
//! of X509-SVID 2 to 4 for a leaf and its intermediates (X5-01 to X5-20) and checks that
//! the key belongs to the leaf. Who signed it, and the time, are checked by peers with
//! [`crate::ChainVerifier`].
//!
//! The key is held as PKCS#8 in memory that is wiped when dropped; it is in no `Debug`
//! output and in no error.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::SystemTime,
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{
    SpiffeId,
    certificate::{self, CaFacts, pem, pem_capacity},
};

mod error;
mod key;
mod leaf;

pub use error::{Place, SvidError};
pub use leaf::Leaf;

/// Most certificates in a chain; other implementations stop at 16 too.
pub const MAX_CHAIN: usize = 16;

/// A certificate's serial number, without leading zero bytes. `Display` is lower-case hex
/// without separators.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Serial(Arc<[u8]>);

impl Serial {
    /// From big-endian bytes, as in the certificate. The zero byte that DER puts before a
    /// high bit is not part of the number and is dropped.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let start = zeros.min(bytes.len().saturating_sub(1));
        Self(Arc::from(&bytes[start..]))
    }

    /// Big-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for byte in self.0.iter() {
            let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(byte & 15))?;
        }
        Ok(())
    }
}

/// An X509-SVID with its private key.
pub struct X509Svid {
    leaf: Leaf,
    key_pkcs8: Zeroizing<Vec<u8>>,
    certified: Arc<CertifiedKey>,
}

impl X509Svid {
    /// Checks chain (leaf first) and key. The key may be PKCS#8, SEC1 (EC) or PKCS#1 (RSA).
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let key_pkcs8 = key::to_pkcs8(key)?;
        let Some((first, intermediates)) = chain.split_first() else {
            return Err(SvidError::EmptyChain);
        };
        if chain.len() > MAX_CHAIN {
            return Err(SvidError::ChainTooLong {
                certificates: chain.len(),
            });
        }
        let leaf = Leaf::parse_issued(first)?;
        for (index, der) in intermediates.iter().enumerate() {
            check_intermediate(index + 1, der)?;
        }
        let certified = key::certify(chain, &key_pkcs8, leaf.id())?;
        Ok(Self {
            leaf,
            key_pkcs8,
            certified: Arc::new(certified),
        })
    }

    /// Reads PEM (certificates leaf first; the key as PKCS#8, SEC1 or PKCS#1, unencrypted).
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, SvidError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| SvidError::ChainPem {
                reason: error.to_string(),
            })?;
        Self::new(chain, key::from_pem(key_pem)?)
    }

    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        self.leaf.id()
    }

    /// What the leaf certificate says.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Leaf first, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Chain and key as rustls wants them; made once.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// PKCS#8 DER of the key.
    pub fn key_pkcs8_der(&self) -> &[u8] {
        &self.key_pkcs8
    }

    /// Chain as PEM.
    pub fn chain_pem(&self) -> String {
        certificate::certificates_pem(self.chain())
    }

    /// Key as PEM (PKCS#8), wiped when dropped.
    pub fn key_pem(&self) -> Zeroizing<String> {
        const LABEL: &str = "PRIVATE KEY";
        let mut text = Zeroizing::new(String::with_capacity(pem_capacity(LABEL, &self.key_pkcs8)));
        pem(LABEL, &self.key_pkcs8, &mut text);
        text
    }

    /// Start of the leaf's validity.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before()
    }

    /// End of the leaf's validity.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after()
    }

    /// Serial number of the leaf.
    pub fn serial(&self) -> &Serial {
        self.leaf.serial()
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("leaf", &self.leaf)
            .field("certificates", &self.chain().len())
            .finish_non_exhaustive()
    }
}

/// X5-06, X5-16: what stands behind the leaf signs certificates.
fn check_intermediate(index: usize, der: &CertificateDer<'_>) -> Result<(), SvidError> {
    let place = Place(index);
    let facts = certificate::parse(der)
        .and_then(|parsed| CaFacts::of(&parsed))
        .map_err(|reason| SvidError::Malformed { place, reason })?;
    if !facts.is_ca {
        return Err(SvidError::IntermediateNotCa { place });
    }
    if facts.key_cert_sign != Some(true) {
        return Err(SvidError::IntermediateCannotSign { place });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
