use std::{fs, os::fd::AsFd};

use rustix::fs::inotify;

use super::*;

#[test]
fn modes_let_nobody_else_write() {
    for bits in [0o600, 0o640, 0o644, 0o400, 0o750, 0o711] {
        assert_eq!(FileMode::new(bits).unwrap().bits(), bits);
    }
    for bits in [0o660, 0o602, 0o777, 0o060] {
        assert!(matches!(
            FileMode::new(bits),
            Err(AccessError::OthersWrite(_))
        ));
    }
    assert!(matches!(
        FileMode::new(0o040),
        Err(AccessError::OwnerCannotRead(_))
    ));
    assert!(matches!(
        FileMode::new(0o4755),
        Err(AccessError::NotPermissions(_))
    ));
}

#[test]
fn the_list_is_as_the_kernel_orders_it() {
    let readers = [
        Reader::Group(7),
        Reader::User(9),
        Reader::User(5),
        Reader::User(9),
    ];
    let list = acl::encode(0o640, &readers, Permissions::READ);
    let mut expected = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1, 6, u32::MAX),
        (2, 4, 5),
        (2, 4, 9),
        (4, 4, u32::MAX),
        (8, 4, 7),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        expected.extend([tag, 0, permissions, 0]);
        expected.extend(u32::to_le_bytes(id));
    }
    assert_eq!(list, expected);
}

#[test]
fn what_is_as_it_should_be_is_not_touched() {
    let home = tempfile::tempdir().unwrap();
    let directory = fs::File::open(home.path()).unwrap();
    let access = Access {
        readers: vec![Reader::Group(7), Reader::User(9), Reader::User(5)],
        acls: Acls::Required,
        ..Access::default()
    };
    let dress = |access: &Access| access.dress_directory(directory.as_fd());
    if let Err(error) = dress(&access) {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        eprintln!(
            "SKIPPED: {} has no access control lists",
            home.path().display()
        );
        return;
    }
    let changes = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&changes, home.path(), inotify::WatchFlags::ATTRIB).unwrap();
    let mut event = [0_u8; 512];
    dress(&access).unwrap();
    assert_eq!(rustix::io::read(&changes, &mut event), Err(Errno::AGAIN));
    // Another list is set.
    let other = Access {
        readers: vec![Reader::User(5)],
        ..access
    };
    dress(&other).unwrap();
    assert!(rustix::io::read(&changes, &mut event).is_ok());
}

#[test]
fn only_a_list_of_readers_is_taken_off() {
    let readers = [Reader::User(5), Reader::Group(7)];
    for mode in [0o700, 0o750, 0o755, 0o711] {
        let list = acl::encode(mode, &readers, Permissions::READ_AND_ENTER);
        assert_eq!(acl::mode_without_readers(&list), Some(mode));
        // Somebody has more than that, or less.
        let other = acl::encode(mode, &readers, Permissions::READ);
        assert_eq!(acl::mode_without_readers(&other), None);
        for length in 0..4 {
            assert_eq!(acl::mode_without_readers(&list[..length]), None);
        }
        assert_eq!(acl::mode_without_readers(&list[..list.len() - 1]), None);
    }
    // The mask bounds the group.
    let mut list = acl::encode(0o750, &readers, Permissions::READ_AND_ENTER);
    let mask = list.len() - 14;
    assert_eq!(list[mask], 5);
    list[mask] = 1;
    assert_eq!(acl::mode_without_readers(&list), Some(0o710));
}
