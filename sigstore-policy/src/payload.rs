//! What stands beside an image in its registry.

use std::fmt;

/// Most payloads that a policy looks at.
pub const MAX_PAYLOADS: usize = 16;
/// Most bytes of all payloads of an image together.
pub const MAX_BYTES: usize = 512 * 1024;

/// A signature or attestation of an image, not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// A Sigstore bundle: JSON, of version 0.1, 0.2 or 0.3.
    pub bundle: Vec<u8>,
    /// In cosign's older form the signature in the bundle is over these bytes, which name
    /// the image ("simple signing", JSON).
    pub simple_signing: Option<Vec<u8>>,
}

impl Payload {
    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.bundle.len() + self.simple_signing.as_ref().map_or(0, Vec::len)
    }

    /// Refuses more payloads than are looked at.
    pub fn check_bounds(payloads: &[Self]) -> Result<(), PayloadError> {
        let size = payloads.iter().map(Self::size).sum();
        if payloads.len() > MAX_PAYLOADS {
            Err(PayloadError::TooMany(payloads.len()))
        } else if size > MAX_BYTES {
            Err(PayloadError::TooLarge(size))
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("bundle", &self.bundle.len())
            .field(
                "simple_signing",
                &self.simple_signing.as_ref().map(Vec::len),
            )
            .finish()
    }
}

/// There is more than is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Too many of them.
    #[error("{0} signatures of one image; at most {MAX_PAYLOADS} are looked at")]
    TooMany(usize),
    /// Too many bytes.
    #[error("signatures of one image of {0} bytes; at most {MAX_BYTES} are looked at")]
    TooLarge(usize),
}
