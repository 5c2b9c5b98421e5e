use std::collections::HashSet;

use super::{CODES, code};

#[test]
fn a_code_says_one_thing() {
    let names: HashSet<_> = CODES.iter().map(|(name, _)| name).collect();
    let codes: HashSet<_> = CODES.iter().map(|(_, code)| code).collect();
    assert_eq!((names.len(), codes.len()), (CODES.len(), CODES.len()));
}

/// What a function turns its variants into, as its source says.
fn names_in(source: &str, function: &str) -> Vec<String> {
    let begin = source.find(function).unwrap();
    let body = &source[begin..];
    let body = &body[..body.find("\n    }\n").unwrap()];
    let arms = body.split("=> \"").skip(1);
    arms.map(|arm| arm.split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_event_has_a_code_and_every_code_an_event() {
    let events = names_in(include_str!("../../audit.rs"), "pub fn as_str");
    assert!(events.len() > 30, "{events:?}");
    for event in &events {
        assert!(code(event, true).is_some(), "{event} has no code");
    }
    for (name, _) in CODES {
        assert!(
            events.iter().any(|event| event == name),
            "there is no {name}"
        );
    }
}

#[test]
fn the_reference_lists_every_event_code_and_reason() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/audit.md");
    let reference = std::fs::read_to_string(path).unwrap();
    for (name, code) in CODES {
        let row = format!("| `{name}` | `{code}` |");
        assert!(reference.contains(&row), "no row {row}");
    }
    for reason in names_in(include_str!("../../access.rs"), "pub fn as_str") {
        let row = format!("| `{reason}` |");
        assert!(reference.contains(&row), "no row {row}");
    }
}

#[test]
fn codes_of_the_original_are_the_original_s() {
    assert_eq!(code("bot.join", true).as_deref(), Some("TJ001I"));
    assert_eq!(code("bot.join", false).as_deref(), Some("TJ001E"));
    assert_eq!(
        code("spiffe.svid.issued", true).as_deref(),
        Some("TSPIFFE000I")
    );
    assert_eq!(code("something.new", true), None);
}
