//! The directory of one version of a set: made, filled, flushed, and removed again.
//!
//! Nobody else may enter one before it is whole, and nothing outside of it is touched.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, fstat, fsync, mkdirat, openat, unlinkat},
    io::Errno,
};

use super::{DEPTH, FileSet, FileSetError, SetFile, failed};

impl FileSet {
    /// Writes a set where no reader finds it yet; its name.
    pub(super) fn write_version(&self, files: &[SetFile<'_>]) -> Result<OsString, FileSetError> {
        let nanoseconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let name = OsString::from(format!("..{nanoseconds:016x}"));
        self.write_version_as(&name, files)?;
        Ok(name)
    }

    pub(super) fn write_version_as(
        &self,
        name: &OsStr,
        files: &[SetFile<'_>],
    ) -> Result<(), FileSetError> {
        let path = self.directory.join(name);
        mkdirat(&self.root, name, Mode::RWXU).map_err(failed("create directory", &path))?;
        // From here on it is ours to remove.
        let written = open_made(self.root.as_fd(), name, &path)
            .and_then(|version| self.fill_version(&version, &path, files));
        written.inspect_err(|_| {
            _ = remove_tree(self.root.as_fd(), name, DEPTH);
        })
    }

    fn fill_version(
        &self,
        version: &OwnedFd,
        path: &Path,
        files: &[SetFile<'_>],
    ) -> Result<(), FileSetError> {
        let mut folders: Vec<(PathBuf, OwnedFd)> = vec![];
        for file in files {
            let file_path = path.join(file.name);
            let relative = Path::new(file.name);
            let (Some(base), parent) = (relative.file_name(), relative.parent()) else {
                continue;
            };
            let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
            let Some(parent) = parent else {
                self.write_file(version.as_fd(), base, &file_path, file.contents)?;
                continue;
            };
            let mut at = PathBuf::new();
            for part in parent.components() {
                let above = folders
                    .iter()
                    .find(|(folder, _)| *folder == at)
                    .map_or(version.as_fd(), |(_, folder)| folder.as_fd());
                at.push(part);
                if !folders.iter().any(|(folder, _)| *folder == at) {
                    let (part, path) = (part.as_os_str(), path.join(&at));
                    mkdirat(above, part, Mode::RWXU).map_err(failed("create directory", &path))?;
                    let made = open_made(above, part, &path)?;
                    folders.push((at.clone(), made));
                }
            }
            let folder = folders
                .iter()
                .find(|(folder, _)| *folder == at)
                .map_or(version.as_fd(), |(_, folder)| folder.as_fd());
            self.write_file(folder, base, &file_path, file.contents)?;
        }
        // From the innermost on: until it is whole, nobody else may enter.
        let folders = folders.iter().rev();
        let directories = folders.map(|(folder, fd)| (path.join(folder), fd));
        for (path, fd) in directories.chain([(path.to_owned(), version)]) {
            self.options
                .access
                .dress_directory(fd.as_fd())
                .map_err(failed("set who may read", &path))?;
            fsync(fd).map_err(failed("flush", &path))?;
        }
        Ok(())
    }

    fn write_file(
        &self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        contents: &[u8],
    ) -> Result<(), FileSetError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file =
            openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("create", path))?;
        let mut file = File::from(file);
        file.write_all(contents).map_err(failed("write", path))?;
        self.options
            .access
            .dress_file(file.as_fd())
            .map_err(failed("set who may read", path))?;
        file.sync_all().map_err(failed("write", path))
    }
}

/// Whether this can be the name of a version.
pub(super) fn is_version_name(name: &str) -> bool {
    name.strip_prefix("..").is_some_and(|digits| {
        digits.len() >= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Opens a directory that we have just made.
fn open_made(above: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, FileSetError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(above, name, flags, Mode::empty()).map_err(failed("open", path))?;
    let stat = fstat(&made).map_err(failed("read", path))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        let message = "somebody put another directory in its place";
        return Err(failed("use", path)(io::Error::other(message)));
    }
    Ok(made)
}

/// Removes a directory with what is in it, following no link; what it can, and the first failure.
pub(super) fn remove_tree(above: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(above, name, flags, Mode::empty())?;
    let mut removed = Ok(());
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let entry = entry.file_name();
        if matches!(entry.to_bytes(), b"." | b"..") {
            continue;
        }
        removed = removed.and(match unlinkat(&directory, entry, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {
                let entry = OsStr::from_bytes(entry.to_bytes());
                remove_tree(directory.as_fd(), entry, depth - 1)
            }
            other => other,
        });
    }
    removed?;
    unlinkat(above, name, AtFlags::REMOVEDIR)
}
