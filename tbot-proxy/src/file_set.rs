//! A directory whose files change together or not at all (DESIGN D13).
//!
//! Each set is written into a fresh hidden directory, flushed, and put in force
//! by the rename of one symbolic link, as Kubernetes does with Secrets:
//!
//! ```text
//! svid.pem       -> ..data/svid.pem
//! svid_key.pem   -> ..data/svid_key.pem
//! ..data         -> ..18f2a0c3b5d1e7f4
//! ..18f2a0c3b5d1e7f4/{svid.pem, svid_key.pem}
//! ```
//!
//! A reader that resolves `..data` once and reads below it sees one set. One
//! that opens `svid.pem` and then `svid_key.pem` may meet a change between the
//! two, and should compare or retry. The set before the newest stays for such
//! readers until the next change, its key included, which is of the same worth to whoever
//! may read the directory; not so with [`Links::None`], where all readers are ours. Older
//! ones, and what a crash left, are removed.
//! What is not ours is never replaced: a plain file in the way is an error.
//!
//! One writer at a time: whoever has the set open holds a lock on it (`..lock`), which
//! the kernel takes back when the process ends.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

/// The link that names the set in force.
const CURRENT: &str = "..data";

/// Name of the link before it is renamed into place.
const NEXT: &str = "..data.next";

/// What a writer locks.
const LOCK: &str = "..lock";

/// A directory that holds one set of files at a time. One writer.
#[derive(Debug)]
pub struct FileSet {
    directory: PathBuf,
    links: Links,
    lock: File,
}

/// Whether each file has a link of its name in the directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// As readers expect of an output.
    ByName,
    /// Only `..data`: all readers are ours.
    None,
}

/// A file of a set.
#[derive(Debug, Clone, Copy)]
pub struct SetFile<'a> {
    /// Name, or `folder/name`.
    pub name: &'a str,
    /// Contents.
    pub contents: &'a [u8],
}

/// What went wrong with a path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {error}", path.display())]
pub struct FileSetError {
    /// What was tried: `create`, `write` …
    pub action: &'static str,
    /// With what.
    pub path: PathBuf,
    /// How it failed.
    pub error: io::Error,
}

impl FileSetError {
    /// Whether another writer has the directory.
    pub fn is_in_use(&self) -> bool {
        self.error.kind() == io::ErrorKind::WouldBlock
    }
}

impl FileSet {
    /// Opens a directory, which is made with mode 0700 (its parents too) unless
    /// it exists, and locks it. Refuses one that others may write to, that is not ours,
    /// or that another writer has open, here or in another process.
    pub fn open(directory: &Path, links: Links) -> Result<Self, FileSetError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(failed("create directory", directory))?;
        refuse_shared(directory)?;
        Ok(Self {
            lock: lock(directory)?,
            directory: directory.to_owned(),
            links,
        })
    }

    /// Whether the directory is still the one that was opened, and ours alone to write.
    pub(crate) fn is_in_place(&self) -> bool {
        let place = |file: &fs::Metadata| (file.dev(), file.ino());
        let ours = self.lock.metadata().map(|file| place(&file));
        let there = fs::metadata(self.directory.join(LOCK)).map(|file| place(&file));
        matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
            && refuse_shared(&self.directory).is_ok()
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Replaces the set in force by `files`. On failure the old one stays, unless the
    /// flush of the directory is what fails: then the new one is in force, but may not
    /// survive a loss of power.
    pub fn replace(&self, files: &[SetFile<'_>]) -> Result<(), FileSetError> {
        let version = self.write_version(files)?;
        let names = match self.links {
            Links::ByName => top_names(files),
            Links::None => vec![],
        };
        // Where all readers are ours, nobody reads it: an old key is not kept.
        let before = match self.links {
            Links::ByName => fs::read_link(self.directory.join(CURRENT)).ok(),
            Links::None => None,
        };
        let mut new_links = vec![];
        if let Err(error) = self.put_in_force(&version, &names, &mut new_links) {
            for link in new_links {
                _ = fs::remove_file(link);
            }
            _ = fs::remove_dir_all(self.directory.join(&version));
            return Err(error);
        }
        // From here on the new set is in force and nothing of it may be removed.
        flush(&self.directory)?;
        self.tidy(&version, before.as_deref(), &names);
        Ok(())
    }

    /// Reads a file of the set in force; `None` if there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FileSetError> {
        let path = self.directory.join(CURRENT).join(name);
        match fs::read(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn write_version(&self, files: &[SetFile<'_>]) -> Result<OsString, FileSetError> {
        let nanoseconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let name = OsString::from(format!("..{nanoseconds:016x}"));
        let version = self.directory.join(&name);
        make_directory(&version)?;
        let written = files.iter().try_for_each(|file| {
            let path = version.join(file.name);
            if let Some(parent) = path.parent()
                && parent != version
                && !parent.is_dir()
            {
                make_directory(parent)?;
            }
            write_file(&path, file.contents)
        });
        match written.and_then(|()| self.flush_folders(&version, files)) {
            Ok(()) => Ok(name),
            Err(error) => {
                _ = fs::remove_dir_all(&version);
                Err(error)
            }
        }
    }

    fn flush_folders(&self, version: &Path, files: &[SetFile<'_>]) -> Result<(), FileSetError> {
        for file in files {
            if let Some(parent) = version.join(file.name).parent()
                && parent != version
            {
                flush(parent)?;
            }
        }
        flush(version)
    }

    /// Ends with the rename that puts `version` in force: whatever fails, fails before it.
    /// New names are linked first, and lead nowhere until then; they are added to `new_links`.
    fn put_in_force(
        &self,
        version: &OsString,
        names: &[&str],
        new_links: &mut Vec<PathBuf>,
    ) -> Result<(), FileSetError> {
        for name in names {
            self.refuse_foreign(name)?;
        }
        for name in names {
            self.link(name, new_links)?;
        }
        let next = self.directory.join(NEXT);
        remove_link(&next)?;
        symlink(version, &next).map_err(failed("create link", &next))?;
        let current = self.directory.join(CURRENT);
        fs::rename(&next, &current).map_err(failed("put in force", &current))
    }

    fn refuse_foreign(&self, name: &str) -> Result<(), FileSetError> {
        let path = self.directory.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_symlink() => {
                let message = "a file of that name is there that we did not write: move it away";
                Err(failed("write", &path)(io::Error::other(message)))
            }
            _ => Ok(()),
        }
    }

    fn link(&self, name: &str, new_links: &mut Vec<PathBuf>) -> Result<(), FileSetError> {
        let path = self.directory.join(name);
        let target = Path::new(CURRENT).join(name);
        if fs::read_link(&path).is_ok_and(|old| old == target) {
            return Ok(());
        }
        let next = self.directory.join(NEXT);
        remove_link(&next)?;
        symlink(&target, &next).map_err(failed("create link", &next))?;
        let is_new = fs::symlink_metadata(&path).is_err();
        fs::rename(&next, &path).map_err(failed("create link", &path))?;
        if is_new {
            new_links.push(path);
        }
        Ok(())
    }

    /// Removes what nobody needs. Its failures leave litter, not harm.
    fn tidy(&self, version: &OsString, before: Option<&Path>, names: &[&str]) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let is_version = name.to_str().is_some_and(is_version_name);
            if kind.is_dir() && is_version {
                if name != *version && before != Some(Path::new(&name)) {
                    _ = fs::remove_dir_all(&path);
                }
            } else if kind.is_symlink() && self.links == Links::ByName {
                let ours = fs::read_link(&path).is_ok_and(|to| to.starts_with(CURRENT));
                if ours && !names.iter().any(|kept| name == *kept) {
                    _ = fs::remove_file(&path);
                }
            }
        }
    }
}

/// Refuses a directory that others may write to or that is not ours.
fn refuse_shared(directory: &Path) -> Result<(), FileSetError> {
    let metadata = fs::metadata(directory).map_err(failed("read", directory))?;
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours {
        let message = format!("it belongs to uid {}, not to ours ({ours})", metadata.uid());
        return Err(failed("use", directory)(io::Error::other(message)));
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        let message = format!(
            "others may write to it (mode {:04o}): chmod go-w it",
            metadata.permissions().mode() & 0o7777
        );
        return Err(failed("use", directory)(io::Error::other(message)));
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, FileSetError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(failed("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => {
            let message = "another service or another tbot-proxy writes to it: give each a directory of its own, or stop that one";
            let error = io::Error::new(io::ErrorKind::WouldBlock, message);
            Err(failed("use", directory)(error))
        }
        Err(error) => Err(failed("lock", &path)(error.into())),
    }
}

fn is_version_name(name: &str) -> bool {
    name.strip_prefix("..").is_some_and(|digits| {
        digits.len() >= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// First components of the names, each once.
fn top_names<'a>(files: &[SetFile<'a>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = files
        .iter()
        .filter_map(|file| file.name.split('/').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn make_directory(path: &Path) -> Result<(), FileSetError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(failed("create directory", path))
}

fn write_file(path: &Path, contents: &[u8]) -> Result<(), FileSetError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("create", path))?;
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", path))
}

fn flush(directory: &Path) -> Result<(), FileSetError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flush", directory))
}

fn remove_link(path: &Path) -> Result<(), FileSetError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileSetError {
    let path = path.to_owned();
    move |error| FileSetError {
        action,
        path,
        error,
    }
}

#[cfg(test)]
mod tests;
