//! Why a certificate is not an X509-SVID.

use std::fmt;

use crate::{IdError, SpiffeId};

/// A certificate's place in its chain: 0 is the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the leaf certificate"),
            index => write!(f, "certificate {} of the chain", index + 1),
        }
    }
}

/// Why a certificate, or a chain with its key, is not an X509-SVID. No variant holds key
/// material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate at all.
    #[error("the certificate chain is empty: give the leaf first, then its intermediates")]
    EmptyChain,
    /// More than 16 certificates.
    #[error(
        "the certificate chain has {certificates} certificates, the limit is 16: send only the leaf and its intermediates"
    )]
    ChainTooLong {
        /// How many.
        certificates: usize,
    },
    /// The chain's PEM cannot be read.
    #[error("the certificate chain is not PEM: {reason}")]
    ChainPem {
        /// What is wrong.
        reason: String,
    },
    /// Not a certificate, or an extension that matters cannot be read.
    #[error("{place} cannot be used: {reason}")]
    Malformed {
        /// Which certificate.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// Not exactly one URI SAN (X509-SVID 2).
    #[error(
        "the leaf certificate has {count} URI SANs: an X509-SVID has exactly one, its SPIFFE ID"
    )]
    UriNames {
        /// How many.
        count: usize,
    },
    /// The URI SAN is not a SPIFFE ID (X509-SVID 5.2).
    #[error("the leaf certificate's URI SAN is not a SPIFFE ID: {0}")]
    Id(#[source] IdError),
    /// The SPIFFE ID has no path (X509-SVID 2, 5.2).
    #[error(
        "the leaf certificate's SPIFFE ID {id} has no path: it names a trust domain, not a workload"
    )]
    NoPath {
        /// The id.
        id: SpiffeId,
    },
    /// cA is true (X509-SVID 4.1, 5.2).
    #[error("the certificate of {id} is a CA certificate: it may sign, not authenticate")]
    LeafIsCa {
        /// The id.
        id: SpiffeId,
    },
    /// No BasicConstraints extension; rust-spiffe and py-spiffe refuse such a leaf.
    #[error("the certificate of {id} has no basicConstraints: issue it with an explicit cA=FALSE")]
    NoBasicConstraints {
        /// The id.
        id: SpiffeId,
    },
    /// No KeyUsage extension (X509-SVID 4.3).
    #[error(
        "the certificate of {id} has no keyUsage: issue it with a critical keyUsage that has digitalSignature"
    )]
    NoKeyUsage {
        /// The id.
        id: SpiffeId,
    },
    /// KeyUsage is not critical (X509-SVID 4.3).
    #[error("the certificate of {id} has a keyUsage that is not critical: mark it critical")]
    KeyUsageNotCritical {
        /// The id.
        id: SpiffeId,
    },
    /// digitalSignature is not set (X509-SVID 4.3).
    #[error(
        "the certificate of {id} lacks digitalSignature in its keyUsage: issue it with that bit"
    )]
    NoDigitalSignature {
        /// The id.
        id: SpiffeId,
    },
    /// keyCertSign or cRLSign is set (X509-SVID 4.3, 5.2).
    #[error(
        "the certificate of {id} has {usage} in its keyUsage: a leaf may not sign certificates or CRLs"
    )]
    LeafSigns {
        /// The id.
        id: SpiffeId,
        /// The bit.
        usage: &'static str,
    },
    /// ExtendedKeyUsage is there without both TLS purposes (X509-SVID 4.4).
    #[error(
        "the certificate of {id} lacks {missing} in its extendedKeyUsage: it needs both serverAuth and clientAuth"
    )]
    ExtendedKeyUsage {
        /// The id.
        id: SpiffeId,
        /// What is missing.
        missing: &'static str,
    },
    /// Empty subject, and SAN not critical (X509-SVID 2, RFC 5280 4.1.2.6).
    #[error(
        "the certificate of {id} has an empty subject and a subjectAltName that is not critical: mark it critical"
    )]
    SanNotCritical {
        /// The id.
        id: SpiffeId,
    },
    /// A certificate behind the leaf is not a CA.
    #[error("{place} is not a CA certificate: only intermediates may follow the leaf")]
    IntermediateNotCa {
        /// Which certificate.
        place: Place,
    },
    /// A certificate behind the leaf lacks keyCertSign.
    #[error("{place} lacks keyCertSign in its keyUsage: an intermediate must have it")]
    IntermediateCannotSign {
        /// Which certificate.
        place: Place,
    },
    /// A CA certificate cannot be read.
    #[error("the CA certificate cannot be read: {reason}")]
    Authority {
        /// What is wrong.
        reason: String,
    },
    /// The key's PEM cannot be read.
    #[error(
        "the private key cannot be read: {reason}; give unencrypted PKCS#8, SEC1 or PKCS#1 PEM"
    )]
    KeyPem {
        /// What is wrong.
        reason: &'static str,
    },
    /// The key cannot be used.
    #[error("the private key cannot be used: {reason}")]
    Key {
        /// What is wrong.
        reason: &'static str,
    },
    /// The key is not that of the leaf.
    #[error(
        "the private key does not belong to the certificate of {id}: give the key that the certificate was issued for"
    )]
    KeyMismatch {
        /// The id.
        id: SpiffeId,
    },
}
