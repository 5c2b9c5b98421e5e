//! Where the bot identity is kept between starts.
//!
//! Key, certificate, trust bundles and what belongs to them are one consistent
//! set ([`FileSet`]). The directory is ours alone (0700, its files 0600), and one
//! process at a time uses it: two that renew the same identity look to the issuer
//! like a stolen copy, which it locks.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use identity::{TrustBundleSet, X509Svid};
use output::{FileSet, FileSetError, Links, SetFile};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{configuration, schedule::Life};

const CERTIFICATE: &str = "bot.pem";
const KEY: &str = "bot_key.pem";
const NEXT_KEY: &str = "next_key.pem";
const BUNDLES: &str = "bundle_map.json";
const STATE: &str = "state.json";

/// Directory, below the storage, of the key that a join was begun with.
const JOIN: &str = "join";
const JOIN_KEY: &str = "key.pem";
const JOIN_TOKEN: &str = "token.sha256";

/// A bot identity with all that is kept beside it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) svid: Arc<X509Svid>,
    pub(crate) bundles: TrustBundleSet,
    /// PKCS#8 PEM of the key that a renewal under way asked a certificate for:
    /// repeated with the same key, a renewal whose answer was lost is the same renewal.
    pub(crate) next_key: Option<PendingKey>,
    pub(crate) state: State,
}

/// PKCS#8 PEM of a private key; wiped when dropped, hidden in `Debug`.
#[derive(Clone)]
pub(crate) struct PendingKey(pub(crate) Zeroizing<String>);

impl std::fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PendingKey")
    }
}

/// The key that a join was begun with. The issuer takes a used token again from the
/// holder of the key that it was used with.
#[derive(Debug, Clone)]
pub(crate) struct JoinKey {
    pub(crate) token: TokenDigest,
    pub(crate) key: PendingKey,
}

/// SHA-256 of a join token, in hexadecimal: it names the token and does not tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenDigest(String);

impl TokenDigest {
    pub(crate) fn of(token: &str) -> Self {
        Self(hex::encode(digest(&SHA256, token.as_bytes())))
    }
}

/// What the issuer said of a bot identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) bot_name: String,
    pub(crate) instance_id: String,
    pub(crate) generation: u64,
    /// When the issuer wants it renewed, in seconds since 1970.
    pub(crate) renew_at: Option<u64>,
    /// The order to renew (`WatchResponse.renew_epoch`) that it was obtained under, once known.
    pub(crate) renew_epoch: Option<u64>,
}

impl Stored {
    pub(crate) fn life(&self) -> Life {
        Life {
            not_before: self.svid.not_before(),
            not_after: self.svid.not_after(),
            renew_at: self
                .state
                .renew_at
                .map(|at| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at)),
        }
    }
}

/// Keeps one bot identity.
#[derive(Debug)]
pub(crate) struct BotStorage {
    /// Open, and so locked, for the life of the process.
    files: Option<FileSet>,
}

impl BotStorage {
    /// Opens what the configuration names, checks that it is ours alone, and locks it.
    pub(crate) fn open(storage: &configuration::Storage) -> Result<Self, StorageError> {
        let configuration::Storage::Directory(path) = storage else {
            return Ok(Self { files: None });
        };
        // First: what others may have read is not touched.
        refuse_open_mode(path)?;
        let files = FileSet::open(path, Links::None).map_err(|error| {
            if error.is_in_use() {
                StorageError::InUse { path: path.clone() }
            } else {
                error.into()
            }
        })?;
        Ok(Self { files: Some(files) })
    }

    /// What was kept last; `None` if nothing was.
    pub(crate) fn load(&self) -> Result<Option<Stored>, StorageError> {
        let Some(files) = &self.files else {
            return Ok(None);
        };
        let Some(certificate) = files.read(CERTIFICATE)? else {
            return Ok(None);
        };
        let current = files.directory().join("..data");
        refuse_open_mode(&current)?;
        for name in [CERTIFICATE, KEY, NEXT_KEY, BUNDLES, STATE] {
            refuse_open_mode(&current.join(name))?;
        }
        let damaged = |name: &str, error: &dyn std::fmt::Display| StorageError::Damaged {
            path: files.directory().join(name),
            error: error.to_string(),
        };
        let read = |name: &str| {
            files
                .read(name)?
                .ok_or_else(|| damaged(name, &"it is missing"))
        };
        let key = Zeroizing::new(read(KEY)?);
        let svid =
            X509Svid::from_pem(&certificate, &key).map_err(|error| damaged(CERTIFICATE, &error))?;
        let bundles = TrustBundleSet::from_map_json(&read(BUNDLES)?)
            .map_err(|error| damaged(BUNDLES, &error))?;
        let state =
            serde_json::from_slice(&read(STATE)?).map_err(|error| damaged(STATE, &error))?;
        let next_key = match files.read(NEXT_KEY)? {
            Some(key) => Some(PendingKey(Zeroizing::new(
                String::from_utf8(key).map_err(|_| damaged(NEXT_KEY, &"it is not PEM"))?,
            ))),
            None => None,
        };
        Ok(Some(Stored {
            svid: Arc::new(svid),
            bundles,
            next_key,
            state,
        }))
    }

    /// The key of the join that was begun last; `None` if none was since the last renewal.
    pub(crate) fn join_key(&self) -> Result<Option<JoinKey>, StorageError> {
        let Some(path) = self.join_directory().filter(|path| path.is_dir()) else {
            return Ok(None);
        };
        let files = FileSet::open(&path, Links::None)?;
        let set = path.join("..data");
        refuse_open_mode(&path)?;
        refuse_open_mode(&set)?;
        refuse_open_mode(&set.join(JOIN_KEY))?;
        let (Some(key), Some(token)) = (files.read(JOIN_KEY)?, files.read(JOIN_TOKEN)?) else {
            return Ok(None);
        };
        let text = |name: &str, bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|error| StorageError::Damaged {
                path: set.join(name),
                error: error.utf8_error().to_string(),
            })
        };
        Ok(Some(JoinKey {
            key: PendingKey(Zeroizing::new(text(JOIN_KEY, key)?)),
            token: TokenDigest(text(JOIN_TOKEN, token)?),
        }))
    }

    /// Keeps the key of a join in place of the one before. Blocks on the disk.
    pub(crate) fn keep_join_key(&self, join: &JoinKey) -> Result<(), StorageError> {
        let Some(path) = self.join_directory() else {
            return Ok(());
        };
        let set = [
            (JOIN_KEY, join.key.0.as_bytes()),
            (JOIN_TOKEN, join.token.0.as_bytes()),
        ];
        let set = set.map(|(name, contents)| SetFile { name, contents });
        Ok(FileSet::open(&path, Links::None)?.replace(&set)?)
    }

    /// Forgets the key of the join. Its failure leaves litter, not harm.
    pub(crate) fn forget_join_key(&self) {
        if let Some(path) = self.join_directory() {
            _ = fs::remove_dir_all(path);
        }
    }

    fn join_directory(&self) -> Option<PathBuf> {
        let files = self.files.as_ref()?;
        Some(files.directory().join(JOIN))
    }

    /// Keeps `stored` in place of what was kept. Blocks on the disk.
    pub(crate) fn save(&self, stored: &Stored) -> Result<(), StorageError> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        let certificate = stored.svid.chain_pem();
        let key = stored.svid.key_pem();
        let bundles = stored.bundles.to_map_json();
        let state = serde_json::to_vec_pretty(&stored.state).unwrap_or_default();
        let mut set = vec![
            (CERTIFICATE, certificate.as_bytes()),
            (KEY, key.as_bytes()),
            (BUNDLES, &bundles),
            (STATE, &state),
        ];
        if let Some(PendingKey(next)) = &stored.next_key {
            set.push((NEXT_KEY, next.as_bytes()));
        }
        let set: Vec<_> = set
            .into_iter()
            .map(|(name, contents)| SetFile { name, contents })
            .collect();
        Ok(files.replace(&set)?)
    }
}

/// Why the storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file system refuses.
    #[error("storage: {0}; give tbot-proxy a directory of its own that it may write to")]
    Files(#[from] FileSetError),
    /// Others could read the key.
    #[error("storage: {} is open to others (mode {mode:04o}): chmod go-rwx it, or join anew if they may have read the key", path.display())]
    Open {
        /// Directory or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others own it.
    #[error("storage: {} belongs to uid {uid}, and tbot-proxy runs as uid {}: run it as that user, or chown -R the directory", path.display(), rustix::process::geteuid().as_raw())]
    Foreign {
        /// Directory or file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Another process uses it.
    #[error("storage: {} is in use by another tbot-proxy: give each a directory of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A defect of ours.
    #[error(
        "storage: the write did not come to its end ({0}): a defect of tbot-proxy; report it with the lines of the log before this one"
    )]
    Unfinished(String),
    /// What was kept cannot be read.
    #[error("storage: {} is damaged: {error}; remove the directory and join anew with a new token", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
}

fn refuse_open_mode(path: &Path) -> Result<(), StorageError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(files_error("read", path, error)),
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StorageError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(StorageError::Foreign {
            path: path.to_owned(),
            uid: metadata.uid(),
        });
    }
    Ok(())
}

fn files_error(action: &'static str, path: &Path, error: io::Error) -> StorageError {
    StorageError::Files(FileSetError {
        action,
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests;
