//! Who may read a set: modes, owner, and readers by POSIX access control lists.
//!
//! Nobody but the owner ever gets the right to write. Readers get `r` on files and
//! `r-x` on directories, in place of a wide mode: whoever is not named sees nothing.

use std::{io, os::fd::BorrowedFd};

use rustix::{
    fs::{Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, fremovexattr, fsetxattr, fstat},
    io::Errno,
    process::geteuid,
    thread::{CapabilitySet, capabilities},
};

use super::acl::{self, Permissions};

/// What it takes to give a directory away, and to write to it afterwards.
const TO_GIVE_AWAY: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Who may read a set. The default: the user that runs us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Mode of files, 0600 if `None`.
    pub file_mode: Option<FileMode>,
    /// Mode of directories; if `None` 0700, and one that is there already stays as it is.
    pub directory_mode: Option<FileMode>,
    /// To whom files and directories are given.
    pub owner: Owner,
    /// Who else may read.
    pub readers: Vec<Reader>,
    /// What is done where the file system has no access control lists.
    pub acls: Acls,
}

/// Permission bits. Neither group nor others may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(u32);

/// To whom files are given; `None`: to whom they belong when they are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Somebody who may read beside the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// This user (uid).
    User(u32),
    /// Who is in this group (gid).
    Group(u32),
}

/// What is done where the file system has no access control lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acls {
    /// None are set, and those that are there stay.
    Off,
    /// Written without, with a warning: readers see nothing then.
    #[default]
    Try,
    /// Nothing is written.
    Required,
}

impl FileMode {
    /// From permission bits.
    ///
    /// # Errors
    ///
    /// Others could write, the owner could not read, or there are other bits.
    pub fn new(bits: u32) -> Result<Self, AccessError> {
        if bits & !0o777 != 0 {
            Err(AccessError::NotPermissions(bits))
        } else if bits & 0o022 != 0 {
            Err(AccessError::OthersWrite(bits))
        } else if bits & 0o400 == 0 {
            Err(AccessError::OwnerCannotRead(bits))
        } else {
            Ok(Self(bits))
        }
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether everybody may read.
    pub fn is_open_to_all(self) -> bool {
        self.0 & 0o004 != 0
    }
}

/// Why a mode is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// More than permission bits.
    #[error("mode {0:04o} has more than permission bits: write three octal digits, as \"0640\"")]
    NotPermissions(u32),
    /// Others could change what is written.
    #[error("mode {0:04o} lets others write: take the write bits of group and others away")]
    OthersWrite(u32),
    /// We could not work with it.
    #[error("mode {0:04o} takes the right to read from the owner")]
    OwnerCannotRead(u32),
}

impl Access {
    /// The directory that sets are in: readers that we let in and that are none any more are
    /// shut out, and the rest is as far as it is configured.
    pub(crate) fn dress_root(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        if self.readers.is_empty()
            && self.acls != Acls::Off
            && let Some(list) = acl::of(root)?
            && let Some(mode) = acl::mode_without_readers(&list)
        {
            // In this order: without a list, the bits of the group are the group's.
            fchmod(root, Mode::from_raw_mode(mode))?;
            fremovexattr(root, acl::NAME)?;
        }
        if self.concerns_the_directory() {
            self.dress_directory(root)?;
        }
        Ok(())
    }

    /// Whether the directory of the set is dressed at all.
    fn concerns_the_directory(&self) -> bool {
        self.directory_mode.is_some() || self.owner != Owner::default() || self.sets_acls()
    }

    /// Refuses an owner whose directory we could not write to any more: what is given away is
    /// not ours to take back.
    pub(super) fn refuse_owner_beyond_us(&self) -> io::Result<()> {
        let other = |uid: &u32| *uid != geteuid().as_raw();
        let Some(uid) = self.owner.uid.filter(other) else {
            return Ok(());
        };
        if capabilities(None)?.effective.contains(TO_GIVE_AWAY) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "to give it to uid {uid} and write to it afterwards takes CAP_CHOWN, CAP_FOWNER and CAP_DAC_OVERRIDE, which tbot-proxy has not: run it as root with them or as that user, or name the user in `readers` in place of `owner`"
            ),
        ))
    }

    pub(super) fn dress_directory(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let mode = self.directory_mode.map_or(0o700, FileMode::bits);
        self.dress(directory, mode, Permissions::READ_AND_ENTER)
    }

    pub(crate) fn dress_file(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let mode = self.file_mode.map_or(0o600, FileMode::bits);
        self.dress(file, mode, Permissions::READ)
    }

    fn sets_acls(&self) -> bool {
        self.acls != Acls::Off && !self.readers.is_empty()
    }

    /// What is as it should be is not touched: `chmod` would shut out the readers until the
    /// list is there again.
    fn dress(&self, file: BorrowedFd<'_>, mode: u32, readers: Permissions) -> io::Result<()> {
        let list = acl::encode(mode, &self.readers, readers);
        if self.is_dressed(file, mode, &list) {
            return Ok(());
        }
        if self.owner != Owner::default() {
            let (uid, gid) = (self.owner.uid, self.owner.gid);
            fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
                .map_err(|error| self.explained(error))?;
        }
        fchmod(file, Mode::from_raw_mode(mode))?;
        if !self.sets_acls() {
            return Ok(());
        }
        match fsetxattr(file, acl::NAME, &list, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) if self.acls == Acls::Try => {
                // Once a directory, not for each of its files.
                if readers == Permissions::READ_AND_ENTER {
                    tracing::warn!(
                        "this file system has no access control lists: the readers cannot read"
                    );
                }
                Ok(())
            }
            Err(Errno::OPNOTSUPP) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this file system has no access control lists: mount it with `acl`, write to another, or give the files a group (`owner`, `file_mode`) in place of `readers`",
            )),
            Err(error) => Err(error.into()),
        }
    }

    fn is_dressed(&self, file: BorrowedFd<'_>, mode: u32, list: &[u8]) -> bool {
        let Ok(stat) = fstat(file) else {
            return false;
        };
        let is_the_owners = self.owner.uid.is_none_or(|uid| uid == stat.st_uid)
            && self.owner.gid.is_none_or(|gid| gid == stat.st_gid);
        if !is_the_owners || !self.sets_acls() {
            return is_the_owners && stat.st_mode & 0o7777 == mode;
        }
        let mut there = vec![0; list.len() + 1];
        // A list holds the permission bits too, but not the special ones.
        stat.st_mode & 0o7000 == 0
            && fgetxattr(file, acl::NAME, &mut there)
                .is_ok_and(|length| there.get(..length) == Some(list))
    }

    fn explained(&self, error: Errno) -> io::Error {
        if error != Errno::PERM {
            return error.into();
        }
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            "only root may give files to another owner: run tbot-proxy as root, with CAP_CHOWN, or as that owner",
        )
    }
}

#[cfg(test)]
mod tests;
