//! Why there is no TLS config.

use crate::SpiffeId;

/// Why there is no TLS config.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The source holds no SVID (yet, or not any more).
    #[error("there is no X509-SVID to present: wait until one is issued")]
    NoSvid,
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
