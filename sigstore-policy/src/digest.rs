//! Which image.

use std::{fmt, str::FromStr};

use sigstore_verify::types::Sha256Hash;

/// The SHA-256 digest of an image's manifest. `Display`: `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageDigest([u8; 32]);

impl ImageDigest {
    pub(crate) fn is_sha256(&self, other: &[u8]) -> bool {
        self.0 == other
    }

    pub(crate) fn to_sha256(self) -> Sha256Hash {
        Sha256Hash::new(self.0)
    }

    /// Whether `text` writes this digest in hex, without the name of the algorithm.
    pub(crate) fn is_hex(&self, text: &str) -> bool {
        hex::encode(self.0) == text
    }
}

impl FromStr for ImageDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let mut bytes = [0; 32];
        text.strip_prefix("sha256:")
            .filter(|digits| digits.bytes().all(lower))
            .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
            .map(|()| Self(bytes))
            .ok_or(DigestError)
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// It is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written sha256: and 64 hexadecimal digits in lower case")]
pub struct DigestError;
