//! X509-SVIDs.
use crate::SpiffeId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::{fmt, sync::Arc, time::SystemTime};

/// A certificate's serial number. `Display` is lower-case hex without separators.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Serial(Arc<[u8]>);
impl Serial {
    /// From big-endian bytes, as in the certificate.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }
    /// Big-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0.iter() {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

/// An X509-SVID with its private key.
pub struct X509Svid {
    _private: (),
}

impl X509Svid {
    /// Checks chain (leaf first) and key.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let _ = (chain, key);
        unimplemented!()
    }
    /// Reads PEM (certificates leaf first; PKCS#8 key).
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, SvidError> {
        let _ = (chain_pem, key_pem);
        unimplemented!()
    }
    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        unimplemented!()
    }
    /// Leaf first, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        unimplemented!()
    }
    /// PKCS#8 DER of the key.
    pub fn key_pkcs8_der(&self) -> &[u8] {
        unimplemented!()
    }
    /// Chain as PEM.
    pub fn chain_pem(&self) -> String {
        unimplemented!()
    }
    /// Key as PEM (PKCS#8), wiped when dropped.
    pub fn key_pem(&self) -> zeroize::Zeroizing<String> {
        unimplemented!()
    }
    /// Start of validity.
    pub fn not_before(&self) -> SystemTime {
        unimplemented!()
    }
    /// End of validity.
    pub fn not_after(&self) -> SystemTime {
        unimplemented!()
    }
    /// Serial number of the leaf.
    pub fn serial(&self) -> &Serial {
        unimplemented!()
    }
}
impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X509Svid")
    }
}

/// Why a certificate is not an X509-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// stub
    #[error("stub")]
    Stub,
}
