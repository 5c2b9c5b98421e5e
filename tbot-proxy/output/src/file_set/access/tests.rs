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
