//! What can go wrong: with one operation (counted), or with the whole run (ends it).

use std::fmt;

use serde::Serialize;

/// Kind of a failed operation. One closed list, spelled the same in text and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpErrorKind {
    /// The target did not accept the connection.
    Connect,
    /// TLS failed: an alert from the target, or its certificate was not acceptable.
    Handshake,
    /// `--resume always`, and the target did a full handshake.
    NotResumed,
    /// The target closed where bytes were expected (refused client certificates end here too).
    Closed,
    /// The connection was reset or the socket failed.
    Reset,
    /// Not finished within `--timeout`.
    Timeout,
    /// What came back is not what was asked for.
    Corrupt,
    /// The issuer refuses what was asked for.
    Refused,
    /// The issuer says that it cannot answer now.
    Unavailable,
    /// The issuer says that too much is asked of it.
    Exhausted,
    /// Due by the fixed rate, but no connection was free to start it before the run ended.
    Unsent,
}

impl OpErrorKind {
    /// Its name, as in the reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::NotResumed => "not_resumed",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Corrupt => "corrupt",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Exhausted => "exhausted",
            Self::Unsent => "unsent",
        }
    }
}

impl fmt::Display for OpErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failed operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct OpError {
    /// What kind of failure.
    pub kind: OpErrorKind,
    /// What happened, for people; the first one of a kind is printed.
    pub detail: String,
}

impl OpError {
    /// A failure of `kind`.
    pub fn new(kind: OpErrorKind, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            detail: detail.to_string(),
        }
    }

    /// An error while bytes were carried; rustls reports alerts and truncation as I/O errors.
    pub fn from_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = if error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>())
        {
            OpErrorKind::Handshake
        } else if error.kind() == ErrorKind::UnexpectedEof {
            OpErrorKind::Closed
        } else {
            OpErrorKind::Reset
        };
        Self::new(kind, error)
    }
}

/// Why a command ends without a usable result.
#[derive(Debug)]
pub enum Failure {
    /// The command line asks for something impossible or forbidden: exit status 2.
    Usage(anyhow::Error),
    /// It was tried and did not work: exit status 1.
    Run(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Run(error)
    }
}
