use crate::{Document, Path};

#[test]
fn a_place_in_a_text_is_found_in_the_file_where_the_text_stands_as_it_is() {
    let yaml = "\
plain: a == b
single: 'a == b'
double: \"a == b\"
escaped: \"a \\\"b\\\" c\"
doubled: 'it''s a == b'
folded: >
  a ==
  b
block: |
  a ==
    b
stripped: |-

  a == b
list:
  - x
  - {k: a == b}
one: a == b
'ü': 'üü a'
";
    let root = Path::root();
    let cases = [
        (root.key("plain"), (1, 3), "1:10: `plain`: m"),
        (root.key("single"), (1, 3), "2:12: `single`: m"),
        (root.key("double"), (1, 3), "3:12: `double`: m"),
        (
            root.key("escaped"),
            (1, 3),
            "4:10: `escaped`: at its column 3: m",
        ),
        (
            root.key("doubled"),
            (1, 7),
            "5:10: `doubled`: at its column 7: m",
        ),
        (
            root.key("folded"),
            (1, 6),
            "7:3: `folded`: at its column 6: m",
        ),
        (root.key("block"), (1, 3), "10:5: `block`: m"),
        (root.key("block"), (2, 3), "11:5: `block`: m"),
        (
            root.key("block"),
            (9, 3),
            "10:3: `block`: at its line 9, column 3: m",
        ),
        (root.key("stripped"), (2, 3), "14:5: `stripped`: m"),
        (root.key("list").index(1).key("k"), (1, 3), "17:11: `k`: m"),
        (root.key("one").index(0), (1, 3), "18:8: `one`: m"),
        (root.key("ü"), (1, 4), "19:10: `ü`: m"),
    ];
    let documents = Document::parse_all("a.yaml", yaml).unwrap();
    for (path, inner, expected) in cases {
        let mistake = documents[0].mistake(&path, Some(inner), "m").to_string();
        assert_eq!(mistake, format!("a.yaml:{expected}"));
    }
}

#[test]
fn what_is_absent_is_told_at_the_nearest_around_it() {
    let documents = Document::parse_all("a.yaml", "a:\n  b: [x]\n").unwrap();
    let a = Path::root().key("a");
    for (path, expected) in [
        (Path::root(), "1:1: m"),
        (Path::root().key("z"), "1:1: `z`: m"),
        (a.clone(), "2:3: `a`: m"),
        (a.key("c").key("d"), "2:3: `d`: m"),
        (a.key("b").index(7), "2:6: `b`: m"),
        (a.key("b").index(0), "2:7: `b`: m"),
    ] {
        let mistake = documents[0].mistake(&path, None, "m").to_string();
        assert_eq!(mistake, format!("a.yaml:{expected}"));
    }
}

#[test]
fn a_path_is_shown_as_it_is_written() {
    let path = Path::root()
        .key("spec")
        .key("rules")
        .index(2)
        .key("a.b")
        .key("c");
    assert_eq!(path.to_string(), "spec.rules[2][\"a.b\"].c");
    assert_eq!(path.name(), Some("c"));
    assert_eq!(path.index(0).name(), Some("c"));
    assert_eq!(Path::root().to_string(), "");
}
