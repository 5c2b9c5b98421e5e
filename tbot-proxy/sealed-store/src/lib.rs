//! Secrets on disk that are of no use to who has the disk.
//!
//! A [`SealedStore`] is a directory with one file an entry. Each is sealed by
//! AES-256-GCM-SIV under a [`SealingKey`] and bound to the name of its entry: what was
//! changed, cut short, moved or sealed under another key is not an entry any more. The key
//! comes from a [`KeySource`]: a file (on another disk, or in memory), the keyring of the
//! kernel, which forgets it at a reboot, or a TPM, which gives it to this machine only.
//!
//! It is a store of what can be had again: an entry that cannot be read is removed, and is
//! no reason not to start. Who can write to the disk can put back an older state of it:
//! entries tell their own age, and their reader looks at it.

mod key;
mod sealed;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

pub use key::{KeyError, KeySource, PCR_MAX, SealingKey, TpmAddress};
use sealed::Unreadable;

/// End of the names of files with entries.
const SUFFIX: &str = ".sealed";
/// Longest name of an entry.
const NAME_MAX: usize = 128;
/// Largest file that is read, in bytes.
const SIZE_MAX: u64 = 16 << 20;
const LOCK: &str = "lock";

/// See the module.
#[derive(Debug)]
pub struct SealedStore {
    directory: PathBuf,
    key: SealingKey,
    /// Held for as long as the store is open.
    _lock: File,
}

/// What a store has.
#[derive(Debug, Default)]
pub struct Contents {
    /// Each with its name, in the order of the names.
    pub entries: Vec<(String, Zeroizing<Vec<u8>>)>,
    /// How many were sealed under another key; they have been removed.
    pub of_another_key: usize,
    /// Files that were changed or cut short; they have been removed.
    pub damaged: Vec<PathBuf>,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the sealed store {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Others may read or change it.
    #[error(
        "the sealed store {} is not ours alone: it must be a directory of this user with mode 0700", .0.display()
    )]
    NotOurs(PathBuf),
    /// A name of an entry that is none: letters, digits, `-`, `_`; 1 to 128.
    #[error("`{0}` is no name of an entry")]
    Name(String),
    /// The key does not come.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system says no.
    #[error("cannot {tried} {}: {source}", path.display())]
    Io {
        /// What was tried.
        tried: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SealedStore {
    /// Opens the store in `directory`, which is made if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]. What is in it is looked at by [`Self::contents`] only.
    pub fn open(directory: &Path, source: &KeySource) -> Result<Self, StoreError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(|source| failed("create", directory, source))?;
        let metadata =
            fs::symlink_metadata(directory).map_err(|source| failed("read", directory, source))?;
        let ours = rustix::process::geteuid().as_raw();
        if !metadata.is_dir() || metadata.uid() != ours || metadata.mode() & 0o077 != 0 {
            return Err(StoreError::NotOurs(directory.to_owned()));
        }
        let path = directory.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let lock = lock.map_err(|source| failed("open", &path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::InUse(directory.to_owned()));
            }
            Err(error) => return Err(failed("lock", &path, error.into())),
        }
        let list = fs::read_dir(directory).map_err(|source| failed("read", directory, source))?;
        let is_entry = |file: io::Result<fs::DirEntry>| {
            file.is_ok_and(|file| file.path().extension() == Some(SUFFIX[1..].as_ref()))
        };
        let holds_entries = list.into_iter().any(is_entry);
        let key = source.key(directory, holds_entries)?;
        Ok(Self {
            directory: directory.to_owned(),
            key,
            _lock: lock,
        })
    }

    /// All that can be read; what cannot is removed.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        let mut contents = Contents::default();
        let list = fs::read_dir(&self.directory)
            .map_err(|source| failed("read", &self.directory, source))?;
        for file in list {
            let file = file.map_err(|source| failed("read", &self.directory, source))?;
            let path = file.path();
            let Some(name) = file.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let Some(name) = name.strip_suffix(SUFFIX) else {
                // What a crash left.
                if name.ends_with(".tmp") {
                    remove(&path);
                }
                continue;
            };
            match self.read(name, &path) {
                Ok(entry) => contents.entries.push((name.to_owned(), entry)),
                Err(Unreadable::OtherKey) => {
                    contents.of_another_key += 1;
                    remove(&path);
                }
                Err(Unreadable::Damaged) => {
                    remove(&path);
                    contents.damaged.push(path);
                }
                // It may be there the next time.
                Err(Unreadable::Now(error)) => {
                    tracing::warn!(path = %path.display(), %error, "a sealed entry cannot be read now");
                }
            }
        }
        contents.entries.sort_by(|(one, _), (two, _)| one.cmp(two));
        contents.damaged.sort();
        Ok(contents)
    }

    fn read(&self, name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
        let is_entry = |metadata: fs::Metadata| metadata.is_file() && metadata.len() <= SIZE_MAX;
        let metadata = fs::symlink_metadata(path).map_err(Unreadable::Now)?;
        if !is_entry(metadata) {
            return Err(Unreadable::Damaged);
        }
        let bytes = fs::read(path).map_err(Unreadable::Now)?;
        sealed::open(&self.key, name, bytes)
    }

    /// Puts an entry in place of what has its name. It is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// If it cannot be written: then what was there is there still.
    pub fn put(&self, name: &str, entry: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name)?;
        if entry.len() as u64 > SIZE_MAX / 2 {
            return Err(failed("seal", &path, io::ErrorKind::FileTooLarge.into()));
        }
        let sealed = sealed::seal(&self.key, name, entry)?;
        let next = path.with_extension("tmp");
        write(&next, &sealed).map_err(|source| {
            remove(&next);
            failed("write", &path, source)
        })?;
        fs::rename(&next, &path).map_err(|source| failed("write", &path, source))?;
        self.flush()
    }

    /// Removes an entry; without effect if there is none. It does not come back, also if the
    /// power fails when this has returned.
    ///
    /// # Errors
    ///
    /// If it is there still, or may be again.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => self.flush(),
            // A removal before may not have been flushed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.flush(),
            Err(error) => Err(failed("remove", &path, error)),
        }
    }

    /// Which files there are, is on the disk.
    fn flush(&self) -> Result<(), StoreError> {
        let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory.map_err(|source| failed("flush", &self.directory, source))
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(StoreError::Name(name.to_owned()));
        }
        Ok(self.directory.join(format!("{name}{SUFFIX}")))
    }
}

/// Ours alone, and on the disk.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "what cannot be read cannot be removed");
    }
}

fn failed(tried: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        tried,
        path: path.to_owned(),
        source,
    }
}
