use super::*;

fn ids(name: &str) -> Option<u32> {
    match name {
        "ada" => Some(1000),
        "root" => Some(0),
        _ => None,
    }
}

#[test]
fn lines_that_are_none_are_left_out() {
    let text = "# lent\n\nada:100000:65536\n1001:165536:65536\n\
                nobody-here:300000:65536\nada\nada:1\nada:1:2:3\nada:x:65536\nada:400000:\n\
                :500000:65536\nada:-1:65536\nada:4294967296:1\nada:600000:4294967296\n\
                ada:0:65536\nada:999:2\n  root:4294901760:4294967295  \n";
    let range = |owner, start, count| Range {
        owner,
        start,
        count,
    };
    assert_eq!(
        parse(text, ids),
        [
            range(1000, 100_000, 65_536),
            range(1001, 165_536, 65_536),
            // To the last id there is, and not around it.
            range(0, 4_294_901_760, u32::MAX),
        ]
    );
}

#[test]
fn a_lent_id_counts_for_who_has_it_and_any_other_for_itself() {
    let home = tempfile::tempdir().unwrap();
    let (subuid, passwd) = (home.path().join("subuid"), home.path().join("passwd"));
    fs::write(&passwd, "root:x:0:0::/:\nada:x:1000:1000::/:\n").unwrap();
    let owners = Owners::of(&subuid, &passwd);
    assert_eq!(owners.owner(100_000), 100_000, "there is no file");

    let text = "ada:100000:65536\n1001:165536:10\n1002:165540:65536\n";
    fs::write(&subuid, text).unwrap();
    for (uid, owner) in [
        (0, 0),
        (1000, 1000),
        (99_999, 99_999),
        (100_000, 1000),
        (165_535, 1000),
        // Of two that have it, the first.
        (165_545, 1001),
        (165_546, 1002),
        (231_076, 231_076),
        (u32::MAX, u32::MAX),
    ] {
        assert_eq!(owners.owner(uid), owner, "{uid}");
    }
    // It is read again when it has changed.
    fs::write(&subuid, "1003:100000:65536\n").unwrap();
    assert_eq!(owners.owner(100_000), 1003);
    fs::remove_file(&subuid).unwrap();
    assert_eq!(owners.owner(100_000), 100_000);
}

#[test]
fn containers_of_an_engine_are_bounded_apart_from_root() {
    let ranges = parse("root:1000000:1000000000\n", ids);
    let counts_for = |uid| ranges[0].counts_for(uid);
    assert_eq!(counts_for(1_000_000), 1_000_000);
    assert_eq!(counts_for(1_065_535), 1_000_000);
    assert_eq!(counts_for(1_065_536), 1_065_536, "the next container");
}
