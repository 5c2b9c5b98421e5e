//! POSIX access control lists as the kernel takes them in an extended attribute
//! (`linux/posix_acl_xattr.h`, `acl(5)`): a version, then entries of tag, permissions
//! and id, little-endian, in the order of their tags, those of one tag by id.

use std::os::fd::BorrowedFd;

use rustix::{buffer::spare_capacity, fs::fgetxattr, io::Errno};

use super::Reader;

/// Extended attribute of the list of a file.
pub(super) const NAME: &str = "system.posix_acl_access";

/// No extended attribute is longer (`XATTR_SIZE_MAX`).
const LONGEST: usize = 1 << 16;

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a reader may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permissions(u16);

impl Permissions {
    /// With a file.
    pub(super) const READ: Self = Self(0b100);
    /// With a directory.
    pub(super) const READ_AND_ENTER: Self = Self(0b101);
}

/// The list of a file with these permission bits and readers.
pub(super) fn encode(mode: u32, readers: &[Reader], permissions: Permissions) -> Vec<u8> {
    let Permissions(read) = permissions;
    let class = |shift: u32| u16::try_from((mode >> shift) & 0o7).unwrap_or_default();
    let mut readers = readers.to_vec();
    readers.sort_unstable();
    readers.dedup();
    let entry = |reader: &Reader| match reader {
        Reader::User(uid) => (USER, read, *uid),
        Reader::Group(gid) => (GROUP, read, *gid),
    };
    let of = |tag: u16| {
        let entries = readers.iter().map(entry);
        entries.filter(move |(of, _, _)| *of == tag)
    };
    let entries = [(USER_OBJ, class(6), NO_ID)]
        .into_iter()
        .chain(of(USER))
        .chain([(GROUP_OBJ, class(3), NO_ID)])
        .chain(of(GROUP))
        // The most that anybody but the owner and others may do.
        .chain([(MASK, class(3) | read, NO_ID), (OTHER, class(0), NO_ID)]);
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// The list of a file; `None` if there is nothing beside its mode.
pub(super) fn of(file: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let mut list = Vec::with_capacity(LONGEST);
    match fgetxattr(file, NAME, spare_capacity(&mut list)) {
        Ok(_) => Ok(Some(list)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The permission bits that a directory has without the readers of its list, if they are such
/// as [`encode`] writes.
pub(super) fn mode_without_readers(list: &[u8]) -> Option<u32> {
    let (version, entries) = list.split_first_chunk()?;
    let (entries, []) = entries.as_chunks::<8>() else {
        return None;
    };
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let Permissions(read) = Permissions::READ_AND_ENTER;
    let (mut mode, mut mask) = (0, 0o7);
    for [tag_low, tag_high, low, high, ..] in entries {
        let permissions = u16::from_le_bytes([*low, *high]);
        match u16::from_le_bytes([*tag_low, *tag_high]) {
            USER_OBJ => mode |= permissions << 6,
            GROUP_OBJ => mode |= permissions << 3,
            OTHER => mode |= permissions,
            MASK => mask = permissions,
            USER | GROUP if permissions == read => {}
            _ => return None,
        }
    }
    Some(u32::from(mode & (0o707 | mask << 3)))
}
