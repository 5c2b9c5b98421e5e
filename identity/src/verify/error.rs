//! Why a peer's chain is refused.

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Serial, SpiffeId, SvidError, tls::Refusal};

/// Why a peer's chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The peer sent no certificate.
    #[error("the peer sent no certificate: it must present an X509-SVID")]
    NoCertificate,
    /// The peer sent more than 16 certificates.
    #[error("the peer sent {certificates} certificates, the limit is 16")]
    ChainTooLong {
        /// How many.
        certificates: usize,
    },
    /// The leaf is not an X509-SVID.
    #[error("the peer's certificate is not an X509-SVID: {0}")]
    Leaf(#[source] SvidError),
    /// We have no bundle of the peer's trust domain.
    #[error("{id} is not trusted: there is no trust bundle of trust domain {}", .id.trust_domain_name())]
    NoBundle {
        /// Who the peer claims to be.
        id: SpiffeId,
    },
    /// No authority of the trust domain issued the chain.
    #[error("{id} is not trusted: no authority in the trust bundle of {} issued its certificate", .id.trust_domain_name())]
    UnknownAuthority {
        /// Who the peer claims to be.
        id: SpiffeId,
    },
    /// The leaf's validity has not begun.
    #[error("the certificate of {id} is not valid before {}: compare the clocks of both hosts", rfc3339(.not_before))]
    NotYetValid {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// When it begins.
        not_before: SystemTime,
    },
    /// The leaf has expired.
    #[error("the certificate of {id} expired at {}", rfc3339(.not_after))]
    Expired {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The authority that issued the chain is not valid now.
    #[error("{id} is not trusted: its authority's certificate is valid from {} to {} only", rfc3339(.not_before), rfc3339(.not_after))]
    AuthorityOutOfValidity {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// When the authority's validity begins.
        not_before: SystemTime,
        /// When it ends.
        not_after: SystemTime,
    },
    /// The leaf or an intermediate is on a revocation list.
    #[error("the certificate of {id} (serial {serial}), or one it depends on, is revoked")]
    Revoked {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// Serial number of the leaf.
        serial: Serial,
    },
    /// The path to an authority breaks another rule of RFC 5280.
    #[error("the certificate chain of {id} is not valid: {reason}")]
    Path {
        /// Who the peer claims to be.
        id: SpiffeId,
        /// What is wrong.
        reason: String,
    },
    /// No certificate that the server sent has the pinned key.
    #[error(
        "the server's CA does not match the pin: expected {expected}, the server sent {seen}; check the address, and take the pin from the issuer again"
    )]
    WrongPin {
        /// The pins, separated by commas.
        expected: String,
        /// The pins of the CA certificates that were sent, separated by commas, or `none`.
        seen: String,
    },
    /// The certificate with the pinned key cannot be an authority.
    #[error("the certificate with the pinned key {pin} cannot be an authority: {reason}")]
    PinnedAuthority {
        /// The pin.
        pin: String,
        /// What is wrong.
        reason: String,
    },
    /// The pinned CA vouches for a server, but not the expected one.
    #[error("the server is {seen}, expected {expected}: check the address")]
    WrongServer {
        /// Who it should be.
        expected: SpiffeId,
        /// Who it is.
        seen: SpiffeId,
    },
}

impl VerifyError {
    /// The verification error inside a rustls error, if that is what failed the handshake.
    pub fn of_handshake(error: &rustls::Error) -> Option<&Self> {
        use rustls::{CertificateError, Error, OtherError};
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref::<Refusal>().map(|refusal| &refusal.0)
            }
            _ => None,
        }
    }

    /// Who the peer claimed to be, as far as that was read.
    pub fn claimed_id(&self) -> Option<&SpiffeId> {
        match self {
            Self::NoBundle { id }
            | Self::UnknownAuthority { id }
            | Self::NotYetValid { id, .. }
            | Self::Expired { id, .. }
            | Self::AuthorityOutOfValidity { id, .. }
            | Self::Revoked { id, .. }
            | Self::Path { id, .. }
            | Self::WrongServer { seen: id, .. } => Some(id),
            Self::NoCertificate
            | Self::ChainTooLong { .. }
            | Self::Leaf(_)
            | Self::WrongPin { .. }
            | Self::PinnedAuthority { .. } => None,
        }
    }
}

fn rfc3339(time: &SystemTime) -> String {
    OffsetDateTime::from(*time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| format!("{time:?}"))
}
