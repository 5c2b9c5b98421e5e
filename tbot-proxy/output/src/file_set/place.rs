//! How the directory of a set is found.
//!
//! Whoever may write to a part of its path could put a symbolic link there and have us
//! write keys, with our rights, where they like. So links are refused by the kernel
//! while it resolves the path (`openat2`, `RESOLVE_NO_SYMLINKS`), and directories that
//! are missing are made one by one relative to the one above that is open already.
//! A kernel without `openat2` (before Linux 5.6, or a sandbox that denies it): with
//! [`Symlinks::TrySecure`] each part is opened by itself with `O_NOFOLLOW`, which refuses
//! links as well; with [`Symlinks::Secure`] it is an error.

use std::{
    ffi::OsStr,
    fs::DirBuilder,
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, open as open_path, openat,
        openat2, statat,
    },
    io::Errno,
};

use super::{FileSetError, failed};

/// What is done about symbolic links in the path of a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// They are refused by the kernel; one that cannot is an error.
    Secure,
    /// They are refused: by the kernel if it can, else by us, part by part.
    #[default]
    TrySecure,
    /// They are followed. Safe where only root and we may write to every part of the path.
    Insecure,
}

/// Opens a directory that is there.
pub(super) fn open(directory: &Path, symlinks: Symlinks) -> Result<OwnedFd, FileSetError> {
    find(directory, symlinks, false)
}

/// Opens a directory; what is missing of its path is made with mode 0700.
pub(super) fn open_or_make(directory: &Path, symlinks: Symlinks) -> Result<OwnedFd, FileSetError> {
    find(directory, symlinks, true)
}

fn find(directory: &Path, symlinks: Symlinks, make: bool) -> Result<OwnedFd, FileSetError> {
    match symlinks {
        Symlinks::Insecure => {
            if make {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)
                    .map_err(failed("create directory", directory))?;
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            open_path(directory, flags, Mode::empty()).map_err(failed("open", directory))
        }
        Symlinks::Secure => Walk::new(Step::Kernel, make).along(directory),
        Symlinks::TrySecure => match Walk::new(Step::Kernel, make).along(directory) {
            Err(error) if is_unsupported(&error.error) => {
                tracing::debug!("openat2 is not to be had: links are refused part by part");
                Walk::new(Step::PartByPart, make).along(directory)
            }
            found => found,
        },
    }
}

/// Whether the kernel has no `openat2`, or a sandbox hides it.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// By what links are refused.
#[derive(Debug, Clone, Copy)]
enum Step {
    Kernel,
    PartByPart,
}

struct Walk {
    step: Step,
    make: bool,
}

impl Walk {
    fn new(step: Step, make: bool) -> Self {
        Self { step, make }
    }

    fn along(&self, directory: &Path) -> Result<OwnedFd, FileSetError> {
        let start = if directory.is_absolute() { "/" } else { "." };
        let start_flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let mut at = openat(CWD, start, start_flags, Mode::empty())
            .map_err(failed("open", Path::new(start)))?;
        let mut path = PathBuf::new();
        for part in directory.components() {
            path.push(part);
            if matches!(part, Component::RootDir | Component::CurDir) {
                continue;
            }
            at = self.enter(&at, part.as_os_str(), &path)?;
        }
        // What was found, to be read and flushed.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        openat(&at, ".", flags, Mode::empty()).map_err(failed("open", directory))
    }

    fn enter(&self, above: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, FileSetError> {
        match self.try_enter(above, name) {
            Err(Errno::NOENT) if self.make => {
                match mkdirat(above, name, Mode::RWXU) {
                    // Another process of ours may have made it.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed("create directory", path)(error)),
                }
                self.try_enter(above, name)
            }
            entered => entered,
        }
        .map_err(|error| explained(error, above, name, path))
    }

    fn try_enter(&self, above: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.step {
            Step::Kernel => {
                let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                openat2(above, name, flags, Mode::empty(), resolve)
            }
            Step::PartByPart => openat(above, name, flags, Mode::empty()),
        }
    }
}

fn explained(error: Errno, above: &OwnedFd, name: &OsStr, path: &Path) -> FileSetError {
    let is_link = || {
        statat(above, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    };
    let error = match error {
        Errno::LOOP | Errno::NOTDIR if is_link() => io::Error::other(
            "it is a symbolic link, and whoever made it would say where keys are written: name the place that it leads to, or set `symlinks: insecure` if only root and tbot-proxy can change the path",
        ),
        Errno::NOTDIR => io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"),
        // A sandbox that does not know the call answers EPERM, but so does no directory.
        Errno::NOSYS | Errno::PERM => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel or sandbox has no openat2 (Linux 5.6): set `symlinks: try-secure`",
        ),
        error => error.into(),
    };
    failed("use", path)(error)
}

#[cfg(test)]
mod tests;
