//! Where the key comes from.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, RandomizedNonceKey},
    hmac,
    rand::fill,
};
use zeroize::Zeroizing;

mod file;
mod keyring;
mod tpm;

pub use tpm::{PCR_MAX, TpmAddress};

/// Its length in bytes.
const LENGTH: usize = 32;

/// Bytes of a key.
pub(crate) type KeyBytes = Zeroizing<[u8; LENGTH]>;

/// Where a key is kept. One that is not there is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file with 64 hexadecimal digits, of this user alone: on another disk than the
    /// store, or in memory. On a disk it is made for an empty store only: where it is
    /// missing, the disk may not be mounted yet.
    File(PathBuf),
    /// The keyring of this user in the kernel (keyrings(7)): processes of this user can have
    /// it, and it is gone after a reboot. One a directory.
    Keyring,
    /// Sealed to a TPM 2.0, in a file beside the entries: only this machine can have it, and
    /// only while these PCRs (SHA-256) are as they were, if any are named.
    Tpm {
        /// The TPM.
        address: TpmAddress,
        /// Numbers of PCRs, up to [`PCR_MAX`].
        pcrs: Vec<u8>,
    },
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file that is not as it should be.
    #[error("the key file {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// There are entries, and the key that they were sealed under is not there.
    #[error(
        "the key file {} is not there, and {} holds what was sealed under it: is its disk mounted? To begin anew, remove that directory", path.display(), store.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// The kernel says no.
    #[error(
        "the kernel's keyring: cannot {tried}: {why}; in containers keyctl(2) is often forbidden: use a key file or a TPM there"
    )]
    Keyring {
        /// What was tried.
        tried: &'static str,
        /// Why not.
        why: String,
    },
    /// The TPM says no.
    #[error("the TPM at {address}: {tried}: {why}")]
    Tpm {
        /// Which.
        address: String,
        /// What was tried.
        tried: &'static str,
        /// Why not.
        why: String,
    },
    /// There are no random numbers, or no memory.
    #[error("cannot seal: the cryptographic library says no")]
    Seal,
}

impl KeySource {
    /// The key of the store in this directory, which holds entries or does not.
    pub(crate) fn key(
        &self,
        directory: &Path,
        holds_entries: bool,
    ) -> Result<SealingKey, KeyError> {
        let bytes = match self {
            Self::File(path) => file::key(path, holds_entries.then_some(directory))?,
            Self::Keyring => keyring::key(directory)?,
            Self::Tpm { address, pcrs } => tpm::key(directory, address, pcrs)?,
        };
        SealingKey::new(&bytes)
    }
}

/// A key that seals.
pub struct SealingKey {
    aead: RandomizedNonceKey,
    id: [u8; 8],
}

impl SealingKey {
    pub(crate) fn new(bytes: &[u8; LENGTH]) -> Result<Self, KeyError> {
        let aead = RandomizedNonceKey::new(&AES_256_GCM_SIV, bytes).map_err(|_| KeyError::Seal)?;
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, bytes),
            b"id of a sealing key",
        );
        let mut id = [0; 8];
        id.copy_from_slice(&tag.as_ref()[..8]);
        Ok(Self { aead, id })
    }

    pub(crate) fn aead(&self) -> &RandomizedNonceKey {
        &self.aead
    }

    /// Tells it from others, and tells nothing of it.
    pub(crate) fn id(&self) -> &[u8] {
        &self.id
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

/// A new one.
fn generate() -> Result<KeyBytes, KeyError> {
    let mut bytes = KeyBytes::default();
    fill(&mut *bytes).map_err(|_| KeyError::Seal)?;
    Ok(bytes)
}

fn told(error: &io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
