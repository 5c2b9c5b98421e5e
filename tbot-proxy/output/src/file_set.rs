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
//! may read the directory; not so with [`Links::None`], where all readers are ours, nor when
//! other rights are configured than it has. Older ones, and what a crash left, are removed.
//! What is not ours is never replaced: a plain file in the way is an error.
//!
//! The directory is opened once, along a path without symbolic links unless they are
//! allowed ([`Symlinks`]), and everything is done relative to what was opened: whoever
//! swaps a part of the path, or plants a link in it, leads no write astray.
//!
//! One writer at a time: whoever has the set open holds a lock on it (`..lock`), which
//! the kernel takes back when the process ends.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, fsync, openat,
        readlinkat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

mod access;
mod acl;
mod dress;
mod place;
mod version;

pub use access::{Access, AccessError, Acls, FileMode, Owner, Reader};
pub use place::Symlinks;
use version::{is_version_name, remove_tree};

/// The link that names the set in force.
const CURRENT: &str = "..data";

/// Name of the link before it is renamed into place.
const NEXT: &str = "..data.next";

/// What a writer locks.
const LOCK: &str = "..lock";

/// Folders in a folder of a set, at most: what is deeper is not ours to remove.
const DEPTH: usize = 8;

/// A directory that holds one set of files at a time. One writer.
#[derive(Debug)]
pub struct FileSet {
    directory: PathBuf,
    options: Options,
    root: OwnedFd,
    lock: File,
}

/// How a set is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether files have links of their names.
    pub links: Links,
    /// What is done about symbolic links in the path of the directory.
    pub symlinks: Symlinks,
    /// Who may read.
    pub access: Access,
}

impl From<Links> for Options {
    /// Ours alone, wherever the path leads, with access control lists as they are.
    fn from(links: Links) -> Self {
        Self {
            links,
            symlinks: Symlinks::Insecure,
            access: Access {
                acls: Acls::Off,
                ..Access::default()
            },
        }
    }
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
    /// Name, or `folder/name`; no part of it begins with `..`.
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
    /// it exists, and locks it. Refuses one that others may write to, that is not ours
    /// (or of the owner that it is kept for), or that another writer has open, here or in
    /// another process.
    pub fn open(directory: &Path, options: impl Into<Options>) -> Result<Self, FileSetError> {
        let options = options.into();
        let root = place::open_or_make(directory, options.symlinks)?;
        refuse_shared(&root, directory, &options.access)?;
        let lock = lock(&root, directory)?;
        let set = Self {
            directory: directory.to_owned(),
            options,
            root,
            lock,
        };
        set.dress_root()?;
        Ok(set)
    }

    /// Whether the directory is still the one that was opened, and ours alone to write.
    pub fn is_in_place(&self) -> bool {
        let Ok(there) = place::open(&self.directory, self.options.symlinks) else {
            return false;
        };
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let ours = (
            fstat(&self.root).map(place).ok(),
            fstat(&self.lock).map(place).ok(),
        );
        let now = (
            fstat(&there).map(place).ok(),
            statat(&there, LOCK, AtFlags::SYMLINK_NOFOLLOW)
                .map(place)
                .ok(),
        );
        ours == now
            && now.0.is_some()
            && now.1.is_some()
            && refuse_shared(&self.root, &self.directory, &self.options.access).is_ok()
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Replaces the set in force by `files`. On failure the old one stays, unless the
    /// flush of the directory is what fails: then the new one is in force, but may not
    /// survive a loss of power.
    pub fn replace(&self, files: &[SetFile<'_>]) -> Result<(), FileSetError> {
        files
            .iter()
            .try_for_each(|file| check_name(&self.directory, file.name))?;
        self.dress_root()?;
        let version = self.write_version(files)?;
        let names = match self.options.links {
            Links::ByName => top_names(files),
            Links::None => vec![],
        };
        // Where all readers are ours, nobody reads it: an old key is not kept.
        let before = match self.options.links {
            Links::ByName => self
                .version_in_force()
                .filter(|before| dress::is_no_wider(self.root.as_fd(), before, &version)),
            Links::None => None,
        };
        let mut new_links = vec![];
        if let Err(error) = self.put_in_force(&version, &names, &mut new_links) {
            for link in new_links {
                _ = unlinkat(&self.root, link, AtFlags::empty());
            }
            _ = remove_tree(self.root.as_fd(), &version, DEPTH);
            return Err(error);
        }
        // From here on the new set is in force and nothing of it may be removed.
        fsync(&self.root).map_err(failed("flush", &self.directory))?;
        // What is left over is tried again at the next change.
        _ = self.tidy(Some(&version), before.as_deref(), &names);
        Ok(())
    }

    /// Reads a file of the set in force; `None` if there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FileSetError> {
        check_name(&self.directory, name)?;
        let path = self.directory.join(CURRENT).join(name);
        let Some(version) = self.version_in_force() else {
            return Ok(None);
        };
        let mut contents = vec![];
        let read = openat(
            &self.root,
            &version,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|set| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(set, name, flags, Mode::empty())
        })
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).read_to_end(&mut contents));
        match read {
            Ok(_) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Removes every file of ours, the set in force first: readers see all of it or nothing.
    /// The directory itself and what others put there stay. What cannot be removed is an
    /// error, once the rest is gone.
    pub fn wipe(&self) -> Result<(), FileSetError> {
        let gone = match unlinkat(&self.root, CURRENT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &self.directory.join(CURRENT))(error)),
        };
        _ = unlinkat(&self.root, NEXT, AtFlags::empty());
        let tidied = self.tidy(None, None, &[]);
        gone.and(tidied)?;
        fsync(&self.root).map_err(failed("flush", &self.directory))
    }

    /// Modes, owner and readers of the directory itself, as far as they are configured.
    fn dress_root(&self) -> Result<(), FileSetError> {
        self.options
            .access
            .dress_root(self.root.as_fd())
            .map_err(failed("set who may read", &self.directory))
    }

    /// Name of the directory of the set in force.
    fn version_in_force(&self) -> Option<OsString> {
        let target = readlinkat(&self.root, CURRENT, vec![]).ok()?;
        let name = OsStr::from_bytes(target.as_bytes()).to_owned();
        name.to_str().is_some_and(is_version_name).then_some(name)
    }

    /// Ends with the rename that puts `version` in force: whatever fails, fails before it.
    /// New names are linked first, and lead nowhere until then; they are added to `new_links`.
    fn put_in_force<'n>(
        &self,
        version: &OsStr,
        names: &[&'n str],
        new_links: &mut Vec<&'n str>,
    ) -> Result<(), FileSetError> {
        for name in names {
            self.refuse_foreign(name)?;
        }
        for name in names {
            self.link(name, new_links)?;
        }
        self.link_next(version)?;
        renameat(&self.root, NEXT, &self.root, CURRENT)
            .map_err(failed("put in force", &self.directory.join(CURRENT)))
    }

    fn refuse_foreign(&self, name: &str) -> Result<(), FileSetError> {
        match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink => {
                let message = "a file of that name is there that we did not write: move it away";
                let path = self.directory.join(name);
                Err(failed("write", &path)(io::Error::other(message)))
            }
            _ => Ok(()),
        }
    }

    fn link<'n>(&self, name: &'n str, new_links: &mut Vec<&'n str>) -> Result<(), FileSetError> {
        let target = Path::new(CURRENT).join(name);
        let old = readlinkat(&self.root, name, vec![]);
        if old.is_ok_and(|old| old.as_bytes() == target.as_os_str().as_bytes()) {
            return Ok(());
        }
        self.link_next(target.as_os_str())?;
        let is_new = statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW).is_err();
        renameat(&self.root, NEXT, &self.root, name)
            .map_err(failed("create link", &self.directory.join(name)))?;
        if is_new {
            new_links.push(name);
        }
        Ok(())
    }

    /// Makes the link that is to be renamed into its place.
    fn link_next(&self, target: &OsStr) -> Result<(), FileSetError> {
        let path = self.directory.join(NEXT);
        match unlinkat(&self.root, NEXT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("remove", &path)(error)),
        }
        symlinkat(target, &self.root, NEXT).map_err(failed("create link", &path))
    }

    /// Removes what nobody needs, as far as it can; the first failure.
    fn tidy(
        &self,
        version: Option<&OsStr>,
        before: Option<&OsStr>,
        names: &[&str],
    ) -> Result<(), FileSetError> {
        let mut tidied = Ok(());
        for entry in Dir::read_from(&self.root).map_err(failed("list", &self.directory))? {
            let entry = entry.map_err(failed("list", &self.directory))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            let is_version = name.to_str().is_some_and(is_version_name);
            let is_kept = [version, before].contains(&Some(name.as_os_str()));
            let Ok(stat) = statat(&self.root, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if is_version && !is_kept => {
                    let removed = remove_tree(self.root.as_fd(), &name, DEPTH)
                        .map_err(failed("remove", &self.directory.join(&name)));
                    tidied = tidied.and(removed);
                }
                FileType::Symlink if self.options.links == Links::ByName => {
                    let ours = readlinkat(&self.root, &name, vec![]).is_ok_and(|to| {
                        Path::new(OsStr::from_bytes(to.as_bytes())).starts_with(CURRENT)
                    });
                    if ours && !names.iter().any(|kept| name == *kept) {
                        _ = unlinkat(&self.root, &name, AtFlags::empty());
                    }
                }
                _ => {}
            }
        }
        tidied
    }
}

/// Opens the directory of a single file of ours: found and refused as that of a set, and not
/// dressed yet.
pub(crate) fn open_directory(directory: &Path, options: &Options) -> Result<OwnedFd, FileSetError> {
    let root = place::open_or_make(directory, options.symlinks)?;
    refuse_shared(&root, directory, &options.access)?;
    Ok(root)
}

/// Refuses a directory that others may write to, that is not ours, or that we could not write
/// to any more once it is its owner's.
fn refuse_shared(root: &OwnedFd, directory: &Path, access: &Access) -> Result<(), FileSetError> {
    let stat = fstat(root).map_err(failed("read", directory))?;
    let ours = rustix::process::geteuid().as_raw();
    let is_the_owners = access.owner.uid == Some(stat.st_uid);
    access
        .refuse_owner_beyond_us()
        .map_err(failed("use", directory))?;
    if stat.st_uid != ours && !is_the_owners {
        let message = format!(
            "it belongs to uid {}, not to ours ({ours}): chown it, or keep it for that user by `owner`",
            stat.st_uid
        );
        return Err(failed("use", directory)(io::Error::other(message)));
    }
    if stat.st_mode & 0o022 != 0 {
        let message = format!(
            "others may write to it (mode {:04o}): chmod go-w it",
            stat.st_mode & 0o7777
        );
        return Err(failed("use", directory)(io::Error::other(message)));
    }
    Ok(())
}

fn lock(root: &OwnedFd, directory: &Path) -> Result<File, FileSetError> {
    match lock_file(root, OsStr::new(LOCK)) {
        Ok(lock) => Ok(File::from(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let message = "another service or another tbot-proxy writes to it: give each a directory of its own, or stop that one";
            let error = io::Error::new(io::ErrorKind::WouldBlock, message);
            Err(failed("use", directory)(error))
        }
        Err(error) => Err(failed("lock", &directory.join(LOCK))(error)),
    }
}

/// Locks a file, made if it is not there, and waits for nothing, whatever the owner of the
/// directory put in its place: `WouldBlock` if somebody has the lock.
pub(crate) fn lock_file(directory: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let not_plain = || io::Error::other("the lock is no plain file: remove it");
    let lock = match openat(directory, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(lock) => lock,
        // A FIFO that nobody reads.
        Err(Errno::NXIO) => return Err(not_plain()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(fstat(&lock)?.st_mode) != FileType::RegularFile {
        return Err(not_plain());
    }
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// Whether a file of a set may have this name: `name` or `folder/name`, leading nowhere
/// else, and meeting no name of ours.
pub fn is_set_name(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty()
        && !name.contains('\0')
        && !name.ends_with('/')
        && path.components().count() <= DEPTH
        && path.components().all(|part| match part {
            Component::Normal(part) => !part.as_bytes().starts_with(b".."),
            _ => false,
        })
}

fn check_name(directory: &Path, name: &str) -> Result<(), FileSetError> {
    if is_set_name(name) {
        return Ok(());
    }
    let message = "a file of a set has a name, or folder/name, and no part of it begins with `..`";
    Err(failed("write", &directory.join(name))(io::Error::other(
        message,
    )))
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

fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> FileSetError {
    let path = path.to_owned();
    move |error| FileSetError {
        action,
        path,
        error: error.into(),
    }
}

#[cfg(test)]
mod tests;
