//! POSIX access control lists as the kernel takes them in an extended attribute
//! (`linux/posix_acl_xattr.h`, `acl(5)`): a version, then entries of tag, permissions
//! and id, little-endian, in the order of their tags, those of one tag by id.

use super::Reader;

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
