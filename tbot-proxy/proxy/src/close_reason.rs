//! Why a connection ended.
//!
//! One closed list, spelled the same in log, metric, record and admin output, so that an operator who
//! has read it in one place can search for it in the others. Free text (which rule, which error) stands
//! in `ConnectionRecord::detail`, never in the reason: reasons are metric labels and stay few.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! close_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal, $fault:ident;)+) => {
        /// Why a connection ended. One closed list, spelled the same in log, metric and audit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseReason {
            $($(#[$doc])+ $variant,)+
        }

        impl CloseReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// `snake_case`, as in log, metric and record.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Whose doing it is.
            pub fn fault(self) -> Fault {
                match self {
                    $(Self::$variant => Fault::$fault,)+
                }
            }
        }
    };
}

close_reasons! {
    /// Both sides finished.
    Complete = "complete", Nobody;

    /// The TLS client went away before its handshake was complete (a port probe, a cancelled client).
    ClientClosedEarly = "client_closed_early", Peer;
    /// The TLS peer did not complete the handshake within `Limits::handshake`.
    HandshakeTimeout = "handshake_timeout", Peer;
    /// The TLS handshake failed: garbage, no common version, the peer's alert.
    HandshakeFailed = "handshake_failed", Peer;
    /// The peer's certificate is absent, expired, or not from an authority that the trust bundle holds.
    PeerUnverified = "peer_unverified", Peer;
    /// The peer's socket was reset.
    PeerReset = "peer_reset", Peer;
    /// The peer closed without close_notify: bytes may be missing.
    TlsTruncated = "tls_truncated", Peer;
    /// The peer broke TLS, or sent a fatal alert.
    TlsError = "tls_error", Peer;

    /// What `connect` names could not be reached.
    DialFailed = "dial_failed", Backend;
    /// What `connect` names did not answer within `Limits::dial`.
    DialTimeout = "dial_timeout", Backend;
    /// The application's socket (the plain side) was reset.
    AppReset = "app_reset", Backend;

    /// There is no SVID to show yet, or no more.
    NoIdentity = "no_identity", Local;
    /// Given up because this host was short: of room, while the peer was yet unproven and others waited; of files, memory
    /// or ports, when `connect` was to be reached.
    Overload = "overload", Local;
    /// The proxy itself failed on this connection (a bug).
    InternalError = "internal_error", Local;

    /// A deny rule names the peer.
    PeerDenied = "peer_denied", Policy;
    /// No allow rule names the peer.
    PeerNotAllowed = "peer_not_allowed", Policy;
    /// A changed policy refuses the peer of this live connection.
    PolicyChanged = "policy_changed", Policy;
    /// The peer's SVID expired while the connection lived.
    PeerSvidExpired = "peer_svid_expired", Policy;
    /// The trust bundle changed and verifies the peer's chain no more.
    TrustWithdrawn = "trust_withdrawn", Policy;
    /// Nothing moved for `Limits::idle`.
    IdleTimeout = "idle_timeout", Policy;
    /// One direction had ended and nothing moved for `Limits::half_close`.
    HalfCloseTimeout = "half_close_timeout", Policy;

    /// Still alive at the deadline of a drain.
    Drained = "drained", Operator;
    /// The service was stopped without a drain.
    Stopped = "stopped", Operator;
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for CloseReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Whose doing the end of a connection is: where an operator looks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It ended as it should.
    Nobody,
    /// The TLS peer.
    Peer,
    /// The application, or whatever `connect` names.
    Backend,
    /// This proxy.
    Local,
    /// A rule or limit of the configuration did what it is for.
    Policy,
    /// Whoever stopped the service.
    Operator,
}

impl Fault {
    /// One lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Peer => "peer",
            Self::Backend => "backend",
            Self::Local => "local",
            Self::Policy => "policy",
            Self::Operator => "operator",
        }
    }
}

/// A reason with its explanation for people: which rule, which error, which limit.
#[derive(Debug, Clone)]
pub(crate) struct Close {
    pub(crate) reason: CloseReason,
    pub(crate) detail: Option<String>,
}

impl Close {
    pub(crate) fn new(reason: CloseReason, detail: impl fmt::Display) -> Self {
        Self {
            reason,
            detail: Some(detail.to_string()),
        }
    }
}

impl From<CloseReason> for Close {
    fn from(reason: CloseReason) -> Self {
        Self {
            reason,
            detail: None,
        }
    }
}

#[cfg(test)]
mod tests;
