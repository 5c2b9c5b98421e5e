use super::*;
use crate::Mistakes;

fn parse_text(text: &str) -> Result<Vec<Node>, String> {
    let (documents, mistakes) = parse(&Arc::from("a.yaml"), text);
    match mistakes.is_empty() {
        true => Ok(documents),
        false => Err(Mistakes::sorted(mistakes).to_string()),
    }
}

#[test]
fn several_documents_are_read_and_empty_ones_left_out() {
    for (text, count) in [
        ("", 0),
        ("# nothing\n", 0),
        ("---\n---\n", 0),
        ("a: 1\n", 1),
        ("---\na: 1\n---\nb: 2\n", 2),
        ("a: 1\n---\n# end\n", 1),
        ("a: 1\n...\n---\nb: 2\n...\n", 2),
    ] {
        assert_eq!(parse_text(text).unwrap().len(), count, "{text:?}");
    }
    let documents = parse_text("---\na: 1\n---\n\n  b: 2\n").unwrap();
    assert_eq!(documents[1].position, Position { line: 5, column: 3 });
}

#[test]
fn what_makes_text_mean_other_than_it_says_is_refused() {
    let cases = [
        (
            "a: 1\nb: 2\na: 3\n",
            "3:1: key `a` stands twice (first on line 1)",
        ),
        (
            "x: {a: 1, \"a\": 2}\n",
            "1:11: key `a` stands twice (first on line 1)",
        ),
        (
            "base: &b {k: 1}\nx:\n  <<: *b\n",
            "3:3: merge keys (`<<`) are not supported: write the keys out",
        ),
        (
            "a: !!int 5\n",
            "1:10: tag `!!int` is not supported: write the value without it",
        ),
        (
            "a: !secret x\n",
            "1:12: tag `!secret` is not supported: write the value without it",
        ),
        (
            "[a, b]: 1\n",
            "1:1: a key must be a single value, not a sequence",
        ),
        (
            "? \n: 1\n",
            "2:1: a key must be a single value, not nothing",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(
            parse_text(text).unwrap_err(),
            format!("a.yaml:{expected}"),
            "{text}"
        );
    }
    assert!(parse_text("a: !!str 5\n").is_ok());
}

#[test]
fn text_that_is_not_yaml_is_located() {
    for (text, at) in [
        ("a: [1, 2\n", "a.yaml:1:4: not YAML: unclosed bracket"),
        ("a: 1\n b: 2\n", "a.yaml:2:"),
        ("a: \"x\n", "a.yaml:"),
        ("a: *nobody\n", "a.yaml:1:4: not YAML: "),
        ("a:\n\tb: 1\n", "a.yaml:2:"),
    ] {
        let mistakes = parse_text(text).unwrap_err();
        assert!(mistakes.starts_with(at), "{text:?}: {mistakes}");
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    }
}

#[test]
fn aliases_are_copied_and_bombs_refused() {
    let documents = parse_text("a: &x [1, 2]\nb: *x\n").unwrap();
    let Value::Mapping(entries) = &documents[0].value else {
        panic!("{documents:?}")
    };
    assert!(matches!(&entries[1].value.value, Value::Sequence(items) if items.len() == 2));
    assert_eq!(entries[1].value.position.line, 1);

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let names = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{names}]\n"));
    }
    let mistakes = parse_text(&bomb).unwrap_err();
    assert!(
        mistakes.contains("too large: more than 200000 values"),
        "{mistakes}"
    );

    let mistakes = parse_text("a: &a [*a]\n").unwrap_err();
    assert!(mistakes.starts_with("a.yaml:1:8: "), "{mistakes}");
}

#[test]
fn copies_for_anchors_and_long_texts_are_counted() {
    let nested = |anchors: usize, leaves: usize| {
        let open: String = (0..anchors).map(|n| format!("&a{n} [")).collect();
        let leaves = "x, ".repeat(leaves);
        format!("a: {open}{leaves}{}\n", "]".repeat(anchors))
    };
    // Each of the anchors would keep a copy of all that is inside it.
    let mistakes = parse_text(&nested(60, 100_000)).unwrap_err();
    assert!(mistakes.contains("too large"), "{mistakes}");
    assert!(parse_text(&nested(60, 1_000)).is_ok());
    assert!(parse_text(&nested(1, 90_000)).is_ok());

    let text = "x".repeat(300_000);
    let aliases = "*a, ".repeat(50_000);
    let mistakes = parse_text(&format!("a: &a {text}\nb: [{aliases}]\n")).unwrap_err();
    assert!(mistakes.contains("too large"), "{mistakes}");
    assert!(parse_text(&format!("a: &a {text}\nb: [*a, *a]\n")).is_ok());
}

#[test]
fn nesting_is_bounded() {
    for text in [
        format!("a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000)),
        (0..200)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect(),
    ] {
        let mistakes = parse_text(&text).unwrap_err();
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    }
}

#[test]
fn a_message_is_one_line_whatever_it_repeats() {
    let mistakes = parse_text("? \"a\\nb\\u0007\"\n: 1\n? \"a\\nb\\u0007\"\n: 2\n").unwrap_err();
    assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
    assert!(mistakes.contains("a\\nb\\u{7}"), "{mistakes}");
}
