//! CA pins: the SHA-256 of a CA certificate's SubjectPublicKeyInfo.

use std::{fmt, str::FromStr};

use rustls::pki_types::CertificateDer;

use crate::{certificate, svid::SvidError, verify::sha256};

const PREFIX: &str = "sha256:";
const DIGITS: usize = 64;

/// The SHA-256 of a CA certificate's SubjectPublicKeyInfo (DER). Text form: `sha256:` and
/// 64 hexadecimal digits; read in either case, written in lower case. It stays the same when the CA's
/// certificate is renewed with its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaPin([u8; 32]);

impl CaPin {
    /// The pin of a certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let parsed =
            certificate::parse(certificate).map_err(|reason| SvidError::Authority { reason })?;
        Ok(Self(sha256(parsed.public_key().raw)))
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CaPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.strip_prefix(PREFIX).ok_or_else(|| PinError::Prefix {
            text: text.chars().take(80).collect(),
        })?;
        let mut bytes = [0; 32];
        for (position, digit) in digits.char_indices() {
            let value = digit.to_digit(16).ok_or(PinError::Digit {
                digit,
                position: PREFIX.len() + position,
            })?;
            if let Some(byte) = bytes.get_mut(position / 2) {
                *byte = *byte << 4 | value as u8;
            }
        }
        if digits.len() != DIGITS {
            return Err(PinError::Length {
                digits: digits.len(),
            });
        }
        Ok(Self(bytes))
    }
}

/// Why text is not a CA pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// It does not begin with `sha256:`.
    #[error(
        "the CA pin \"{text}\" does not begin with \"sha256:\": write sha256:<64 hexadecimal digits>, as the issuer prints it"
    )]
    Prefix {
        /// What was given (its beginning).
        text: String,
    },
    /// Something is not a hexadecimal digit.
    #[error(
        "the CA pin has {digit:?} at byte {position}, which is not a hexadecimal digit: copy it again from the issuer"
    )]
    Digit {
        /// What was found.
        digit: char,
        /// Where, from 0.
        position: usize,
    },
    /// Not 64 digits.
    #[error(
        "the CA pin has {digits} hexadecimal digits, it needs 64: copy all of it from the issuer"
    )]
    Length {
        /// How many.
        digits: usize,
    },
}
