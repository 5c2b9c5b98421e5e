//! SHA-256 of executables, each computed once.
//!
//! A hash is kept for a file as it was: mount, device, inode, size, and both times of
//! change to the nanosecond. A device alone does not do: its number is given again when
//! a file system without a disk is unmounted, which every user can bring about in a
//! mount namespace of his own, and so choose all the rest. The kernel sets the time of a change on a clock of some
//! milliseconds, so a file that changed a moment before it was hashed could change
//! again and look the same: such a hash is answered and not kept. A file that changes
//! while it is read has none.

use std::{
    fmt,
    fs::Metadata,
    io::{self, Read, Take},
    os::unix::fs::MetadataExt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use hashlink::LruCache;
use rustix::fs::{FsWord, fstatfs};

use super::executable::Executable;

/// A file this old does not change again unnoticed.
const SETTLED: Duration = Duration::from_secs(2);
/// The type of file systems that a process of some user serves (statfs(2)): what they
/// give the agent to read need not be what the kernel ran.
const FUSE: FsWord = 0x6573_5546;

/// The file, as it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    mount: u64,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(mount: u64, metadata: &Metadata) -> Self {
        Self {
            mount,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(self.changed.0)
            .is_ok_and(|changed| Duration::from_secs(changed) + SETTLED < now)
    }
}

pub(super) struct Hashes {
    kept: Mutex<LruCache<Version, [u8; 32]>>,
    max_size: u64,
}

impl Hashes {
    /// Keeps so many, of files up to so many bytes.
    pub(super) fn new(kept: usize, max_size: u64) -> Self {
        Self {
            kept: Mutex::new(LruCache::new(kept)),
            max_size,
        }
    }

    /// SHA-256 in hex if it is known already, or why there is none.
    pub(super) fn known(&self, executable: &Executable) -> Result<Option<String>, String> {
        let version = Version::of(executable.mount, &executable.metadata);
        if version.size > self.max_size {
            return Err(format!(
                "the executable has {} bytes, more than the {} that are hashed",
                version.size, self.max_size
            ));
        }
        // First of all: such a file system says of its files what it likes.
        let file_system = fstatfs(&executable.opened).map_err(|error| failed(error.into()))?;
        if file_system.f_type == FUSE {
            return Err(
                "the executable is on a FUSE file system, which may answer the agent otherwise \
                 than it did the kernel"
                    .to_owned(),
            );
        }
        Ok(self.lock().get(&version).map(hex::encode))
    }

    /// SHA-256 in hex, or why there is none. Blocks, for long if the file is large.
    pub(super) fn hash(&self, executable: &Executable) -> Result<String, String> {
        // Another process of the file may have been hashed meanwhile.
        if let Some(hash) = self.known(executable)? {
            return Ok(hash);
        }
        let version = Version::of(executable.mount, &executable.metadata);
        let hash = sha256((&executable.opened).take(version.size)).map_err(failed)?;
        let after = executable.opened.metadata().map_err(failed)?;
        if Version::of(executable.mount, &after) != version {
            return Err("the executable was changed while it was hashed".to_owned());
        }
        if version.is_settled() {
            self.lock().insert(version, hash);
        }
        Ok(hex::encode(hash))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Version, [u8; 32]>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashes")
            .field("max_size", &self.max_size)
            .finish_non_exhaustive()
    }
}

fn failed(error: io::Error) -> String {
    format!("the executable cannot be read: {error}")
}

fn sha256(mut file: Take<impl Read>) -> io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => context.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}
