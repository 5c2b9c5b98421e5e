use super::*;

#[test]
fn names_and_numbers() {
    assert_eq!(Principal::parse("0").unwrap(), Principal::Id(0));
    let root = Principal::parse("root").unwrap();
    assert_eq!((root.user().unwrap(), root.group().unwrap()), (0, 0));
    for bad in ["", "a b", "a:b", "4294967295", "99999999999", "a\n"] {
        assert!(Principal::parse(bad).is_err(), "{bad:?}");
    }
    let error = Principal::parse("no-such-user")
        .unwrap()
        .user()
        .unwrap_err();
    assert!(
        error.to_string().contains("no user `no-such-user`"),
        "{error}"
    );
    // A prefix of a name is another name.
    assert!(Principal::parse("roo").unwrap().user().is_err());
}
