//! Keys that the agent makes, and the certificates that come back for them.

use std::time::{Duration, SystemTime};

use identity::{SvidError, X509Svid};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// An ECDSA P-256 key pair and its certificate signing request.
pub(crate) struct Key {
    pkcs8: Zeroizing<Vec<u8>>,
    pem: Zeroizing<String>,
    csr: Vec<u8>,
}

impl Key {
    /// A fresh one.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        Self::of(&KeyPair::generate()?)
    }

    /// One that was kept, from PKCS#8 PEM.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::of(&KeyPair::from_pem(pem)?)
    }

    fn of(pair: &KeyPair) -> Result<Self, KeyError> {
        // The issuer takes the public key and nothing else: no names in it.
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(Self {
            csr: params.serialize_request(pair)?.der().to_vec(),
            pkcs8: Zeroizing::new(pair.serialize_der()),
            pem: Zeroizing::new(pair.serialize_pem()),
        })
    }

    /// PKCS#10, DER.
    pub(crate) fn csr(&self) -> Vec<u8> {
        self.csr.clone()
    }

    /// PKCS#8 DER.
    pub(crate) fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    /// PKCS#8 PEM.
    pub(crate) fn pem(&self) -> Zeroizing<String> {
        self.pem.clone()
    }

    /// The SVID that a chain (DER, leaf first) makes with this key.
    pub(crate) fn certified(&self, chain: Vec<Vec<u8>>) -> Result<X509Svid, SvidError> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(self.pkcs8.to_vec());
        X509Svid::new(chain, PrivateKeyDer::Pkcs8(key))
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("key pair: {0}")]
pub(crate) struct KeyError(#[from] rcgen::Error);

/// A protobuf timestamp as a time; `None` if it is absent or not one.
pub(crate) fn time_of(timestamp: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    SystemTime::try_from(timestamp?).ok()
}

/// A protobuf duration; `None` if it is absent or negative.
pub(crate) fn duration_of(duration: Option<prost_types::Duration>) -> Option<Duration> {
    Duration::try_from(duration?).ok()
}
