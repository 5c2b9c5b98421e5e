//! The rights that sets have as they are found: a set stays beside a newer one only if
//! whoever may read it may read the newer one too.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::{DEPTH, acl};

/// Whether `before` has no rights that `version` has not: modes, owners and access control
/// lists of files and directories. What cannot be looked at, or is no file, has others.
pub(super) fn is_no_wider(root: BorrowedFd<'_>, before: &OsStr, version: &OsStr) -> bool {
    let of = |version| {
        let mut dresses = BTreeSet::new();
        collect(root, version, DEPTH, &mut dresses).map(|()| dresses)
    };
    match (of(before), of(version)) {
        (Ok(before), Ok(version)) => before.is_subset(&version),
        _ => false,
    }
}

/// Kind and mode, owner, and access control list.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Dress {
    mode: u32,
    uid: u32,
    gid: u32,
    list: Option<Vec<u8>>,
}

impl Dress {
    fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let stat = fstat(file)?;
        Ok(Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            list: acl::of(file)?,
        })
    }
}

fn collect(
    above: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
    dresses: &mut BTreeSet<Dress>,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let directory = openat(above, name, flags | OFlags::DIRECTORY, Mode::empty())?;
    dresses.insert(Dress::of(directory.as_fd())?);
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth > 0 => {
                let name = OsStr::from_bytes(name.to_bytes());
                collect(directory.as_fd(), name, depth - 1, dresses)?;
            }
            FileType::RegularFile => {
                let file = openat(&directory, name, flags, Mode::empty())?;
                dresses.insert(Dress::of(file.as_fd())?);
            }
            _ => return Err(Errno::INVAL),
        }
    }
    Ok(())
}
