//! The data directory: private (0700), ours, and open in one issuer at a time.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

const LOCK_FILE: &str = "issuer.lock";

/// The data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes it if it is absent (its parent must exist), checks who may enter
    /// it, and takes the lock.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let refuse = |why: String, remedy: &'static str| DirectoryError {
            path: path.to_owned(),
            why,
            remedy,
        };
        check_parent(path)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let remedy = "make its parent writable, or choose another with --data-dir";
                return Err(refuse(format!("cannot be made: {error}"), remedy));
            }
        }
        let facts = path.metadata().map_err(|error| {
            refuse(
                format!("cannot be examined: {error}"),
                "choose another with --data-dir",
            )
        })?;
        if !facts.is_dir() {
            let remedy = "choose another with --data-dir";
            return Err(refuse("is not a directory".to_owned(), remedy));
        }
        let own = rustix::process::geteuid().as_raw();
        if facts.uid() != own {
            let why = format!(
                "belongs to uid {}, not to this issuer's uid {own}",
                facts.uid()
            );
            return Err(refuse(why, "`chown` it, or choose another with --data-dir"));
        }
        if facts.mode() & 0o077 != 0 {
            let why = format!("is open to others (mode {:04o})", facts.mode() & 0o777);
            return Err(refuse(why, "run `chmod 700` on it"));
        }
        let lock = take_lock(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Takes the lock of a data directory that no issuer uses, without changing
    /// anything in it; `None` if one does. It is free again when the file is dropped.
    pub fn lock_if_unused(path: &Path) -> Result<Option<File>, DirectoryError> {
        let refuse = |why: String, remedy: &'static str| DirectoryError {
            path: path.to_owned(),
            why,
            remedy,
        };
        let own = rustix::process::geteuid().as_raw();
        let owner = path.metadata().map(|facts| facts.uid());
        let owner = owner.map_err(|error| {
            let why = format!("cannot be examined: {error}");
            refuse(why, "choose another with --data-dir")
        })?;
        if owner != own {
            let why = format!("belongs to uid {owner}, not to uid {own}, who asks");
            // Files that SQLite makes beside the store would lock the issuer out.
            return Err(refuse(why, "run this as the user of the issuer"));
        }
        let file = File::open(path.join(LOCK_FILE)).map_err(|error| {
            let why = format!("has no {LOCK_FILE} that can be read ({error})");
            refuse(why, "choose another with --data-dir")
        })?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(locked.is_ok().then_some(file))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A parent in which anybody may rename our directory away is no protection.
fn check_parent(path: &Path) -> Result<(), DirectoryError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let refuse = |why: String, remedy: &'static str| DirectoryError {
        path: path.to_owned(),
        why,
        remedy,
    };
    let facts = parent.metadata().map_err(|error| {
        let why = format!("cannot be made: its parent {parent:?}: {error}");
        refuse(why, "make the parent, or choose another with --data-dir")
    })?;
    const STICKY: u32 = 0o1000;
    if facts.mode() & 0o002 != 0 && facts.mode() & STICKY == 0 {
        let why = format!("lies in {parent:?}, which everybody may write to");
        return Err(refuse(
            why,
            "run `chmod o-w` on the parent, or choose another with --data-dir",
        ));
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, DirectoryError> {
    let refuse = |why: String, remedy: &'static str| DirectoryError {
        path: path.to_owned(),
        why,
        remedy,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK_FILE))
        .map_err(|error| {
            let remedy = "make it writable, or choose another with --data-dir";
            refuse(format!("cannot be written to: {error}"), remedy)
        })?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // Only for the message.
        let _ = file.read_to_string(&mut holder);
        let why = format!("is in use by another issuer (pid {})", holder.trim());
        return Err(refuse(
            why,
            "stop that one, or choose another with --data-dir",
        ));
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| {
        let remedy = "make room on the disk, or choose another with --data-dir";
        refuse(format!("cannot be written to: {error}"), remedy)
    })?;
    Ok(file)
}

/// Why a data directory cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("the data directory {path:?} {why}: {remedy}")]
pub struct DirectoryError {
    path: PathBuf,
    why: String,
    remedy: &'static str,
}
