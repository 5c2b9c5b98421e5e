//! Why a bundle cannot be used.

use crate::{IdError, TrustDomain};

/// Why a bundle, or a set of them, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The PEM text cannot be read.
    #[error(
        "the trust bundle of {trust_domain} is not PEM: {reason}; give one or more CERTIFICATE sections"
    )]
    Pem {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong.
        reason: String,
    },
    /// An authority's certificate cannot be used.
    #[error(
        "authority {index} (from 0) of the trust bundle of {trust_domain} cannot be used: {reason}"
    )]
    Authority {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which authority.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A revocation list cannot be used.
    #[error(
        "revocation list {index} (from 0) of the trust bundle of {trust_domain} cannot be used: {reason}"
    )]
    Crl {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which list.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The bundle document cannot be read.
    #[error("the bundle document of {trust_domain} cannot be read: {reason}")]
    Document {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong.
        reason: String,
    },
    /// The bundle map cannot be read.
    #[error("the bundle map cannot be read: {reason}")]
    Map {
        /// What is wrong.
        reason: String,
    },
    /// A name in the bundle map is not a trust domain.
    #[error("the bundle map names something that is not a trust domain: {0}")]
    MapName(#[source] IdError),
}
