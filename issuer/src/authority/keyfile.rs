//! The key file: 256 bits that encrypt the CA's private key at rest.
//!
//! A copy of the store alone gives nobody the CA. The file holds 64 hex digits
//! and a line feed, mode 0600; it is made at first start and never changed.
//! Sealed data is `nonce (12 bytes) ‖ AES-256-GCM ciphertext and tag`; the
//! associated data names the trust domain and the key, so that a sealed key
//! cannot be moved to another row or another trust domain.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use identity::TrustDomain;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;

/// The key of the key file.
pub struct SealingKey {
    key: LessSafeKey,
    path: PathBuf,
}

impl SealingKey {
    /// Reads the file; makes it first if it is absent and `may_create`.
    pub fn open(path: &Path, may_create: bool) -> Result<Self, KeyFileError> {
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => {
                Self::create(path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyFileError::Missing {
                path: path.to_owned(),
            }),
            Err(source) => Err(KeyFileError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// A key that is in no file, and gone with this.
    pub fn ephemeral() -> Result<Self, KeyFileError> {
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| KeyFileError::Seal)?;
        Self::new(Path::new(""), &bytes)
    }

    fn read(path: &Path, file: File) -> Result<Self, KeyFileError> {
        let unreadable = |source| KeyFileError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(1024)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| {
            KeyFileError::Malformed {
                path: path.to_owned(),
            }
        })?;
        Self::new(path, &bytes)
    }

    fn create(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::Unwritable {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice())
            .map_err(|_| failed(io::Error::other("no randomness")))?;
        let text = Zeroizing::new(format!("{}\n", hex::encode(bytes.as_slice())));
        // Written beside and linked into place: the file appears whole or not
        // at all, and never replaces another. The name is never met again: what a crash
        // left behind stands in nobody's way (in a container every process has one id).
        let mut random = [0u8; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| failed(io::Error::other("no randomness")))?;
        let beside = path.with_extension(format!("new-{}", hex::encode(random)));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::hard_link(&beside, path));
        let removed = std::fs::remove_file(&beside);
        written.and(removed).map_err(failed)?;
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
        }
        Self::new(path, &bytes)
    }

    fn new(path: &Path, bytes: &[u8; KEY_LEN]) -> Result<Self, KeyFileError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| KeyFileError::Malformed {
            path: path.to_owned(),
        })?;
        Ok(Self {
            key: LessSafeKey::new(key),
            path: path.to_owned(),
        })
    }

    /// Encrypts the private key `key_id` of `trust_domain`.
    pub fn seal(
        &self,
        trust_domain: &TrustDomain,
        key_id: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, KeyFileError> {
        let mut nonce = [0u8; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| KeyFileError::Seal)?;
        // Room for the tag from the start: no copy of the key stays behind.
        let mut data = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
        data.extend_from_slice(plain);
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated_data(trust_domain, key_id),
                &mut *data,
            )
            .map_err(|_| KeyFileError::Seal)?;
        Ok([nonce.as_slice(), data.as_slice()].concat())
    }

    /// Decrypts what [`SealingKey::seal`] made.
    pub fn open_sealed(
        &self,
        trust_domain: &TrustDomain,
        key_id: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let wrong = || KeyFileError::WrongKey {
            path: self.path.clone(),
        };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let mut data = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                associated_data(trust_domain, key_id),
                &mut data,
            )
            .map_err(|_| wrong())?
            .len();
        data.truncate(length);
        Ok(data)
    }
}

fn associated_data(trust_domain: &TrustDomain, key_id: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("issuer/ca-key/v1\0{trust_domain}\0{key_id}").into_bytes())
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is a CA but no file.
    #[error(
        "the key file {path:?} is missing, and the CA's key was encrypted with it: restore it, or name it with --key-file"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error(
        "the key file {path:?} cannot be read ({source}): correct its owner or mode, or name another with --key-file"
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made.
    #[error(
        "the key file {path:?} cannot be written ({source}): make its folder writable, or choose another place with --key-file"
    )]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the key file {path:?} is open to others (mode {mode:04o}): run `chmod 600` on it")]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("the key file {path:?} does not hold a key (64 hex digits): restore it from a backup")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The key does not open the CA's key.
    #[error(
        "the key file {path:?} does not fit this store: restore the file that the CA's key was encrypted with, or name it with --key-file"
    )]
    WrongKey {
        /// Which file.
        path: PathBuf,
    },
    /// Encryption failed.
    #[error("the CA's key cannot be encrypted: the cryptographic library refused")]
    Seal,
}
