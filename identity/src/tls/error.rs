//! Why there is no TLS config.

use std::time::SystemTime;

use crate::SpiffeId;

/// Why there is no TLS config.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The source holds no SVID (yet, or not any more).
    #[error("there is no X509-SVID to present: wait until one is issued")]
    NoSvid,
    /// The SVID has expired and nobody has taken it away: nothing is presented.
    #[error("the X509-SVID of {id} has expired: wait until it is renewed, and check the clock")]
    SvidExpired {
        /// Our own id.
        id: SpiffeId,
        /// End of its validity.
        not_after: SystemTime,
    },
    /// The CA certificate is to be sent, but none in our bundle issued our SVID.
    #[error(
        "no authority in our own trust bundle issued the X509-SVID of {id}: wait for the bundle, or renew the SVID"
    )]
    NoAuthority {
        /// Our own id.
        id: SpiffeId,
    },
    /// A pinned connection without a pin.
    #[error("no CA pin was given: give at least one, sha256:<64 hexadecimal digits>")]
    NoPin,
    /// rustls refuses the configuration.
    #[error("rustls refuses the configuration: {0}")]
    Rustls(#[from] rustls::Error),
}
