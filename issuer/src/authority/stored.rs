//! Keys of the authority as they are stored: what each is for and where it stands.

use std::{fmt, time::SystemTime};

/// What a key signs. Each use has its own keys: one that signs certificates never
/// signs a token (JW-17, WI-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyUse {
    /// Certificates (ECDSA P-256).
    X509,
    /// JWT-SVIDs with ES256.
    JwtEs256,
    /// JWT-SVIDs with RS256 (RSA of 2048 bits), for validators that know nothing else.
    JwtRs256,
    /// WIT-SVIDs (ES256); there only if WIT-SVIDs are switched on.
    Wit,
    /// Checkpoints of the audit trail (ES256); not in the trust bundle.
    Audit,
}

impl KeyUse {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::X509,
        Self::JwtEs256,
        Self::JwtRs256,
        Self::Wit,
        Self::Audit,
    ];

    /// As stored, shown and typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::JwtEs256 => "jwt-es256",
            Self::JwtRs256 => "jwt-rs256",
            Self::Wit => "wit",
            Self::Audit => "audit",
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.as_str() == name)
    }
}

impl fmt::Display for KeyUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a key stands in its life; see [`super::lifecycle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Published, and signs nothing yet (FE-01).
    Prepared,
    /// Signs. There is one for each use.
    Active,
    /// Signs no more; what it signed is still valid (FE-02).
    Retired,
}

impl KeyState {
    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Prepared, Self::Active, Self::Retired]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAuthority {
    /// Unique over all: of a CA its subject key identifier in lower-case hex, of the
    /// others the RFC 7638 thumbprint, which is their `kid`.
    pub key_id: String,
    /// What it signs.
    pub key_use: KeyUse,
    /// Where it stands.
    pub state: KeyState,
    /// Of a CA its certificate (DER), of the others their public JWK (JSON).
    pub certificate: Vec<u8>,
    /// The private key; see [`super::keyfile::SealingKey`]. Empty once it is not needed
    /// any more.
    pub sealed_key: Vec<u8>,
    /// When it was made.
    pub created: SystemTime,
    /// When it began to sign.
    pub activated: Option<SystemTime>,
    /// When it ceased to sign.
    pub retired: Option<SystemTime>,
    /// Nothing that it signed is valid after this.
    pub not_after: SystemTime,
}

impl fmt::Debug for StoredAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredAuthority")
            .field("key_id", &self.key_id)
            .field("key_use", &self.key_use)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
