//! `docs/reference/policy.md` says what the code does: every attribute is in
//! its table, and every example compiles.

use policy::{Expression, PathTemplate, attributes};

const MANUAL: &str = include_str!("../../docs/reference/policy.md");

/// The lines of every block of this language.
fn examples(language: &str) -> Vec<&'static str> {
    let blocks = MANUAL.split("```").skip(1).step_by(2);
    let lines = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    lines.flat_map(str::lines).collect()
}

#[test]
fn every_attribute_is_in_the_manual_and_no_other() {
    let expected: Vec<String> = attributes()
        .iter()
        .map(|it| {
            format!(
                "| `{}` | {} | {} | {} |",
                it.path, it.r#type, it.presence, it.doc
            )
        })
        .collect();
    let (_, tables) = MANUAL.split_once("\n## Attributes\n").unwrap();
    let found: Vec<&str> = tables
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(found, expected);
    for heading in tables.lines().filter_map(|line| line.strip_prefix("### `")) {
        let (group, trust) = heading.split_once(".*` ").unwrap();
        let members = attributes()
            .iter()
            .filter(|it| it.path.starts_with(&format!("{group}.")));
        for member in members {
            assert_eq!(format!("({})", member.trust), trust, "{}", member.path);
        }
    }
}

#[test]
fn every_example_compiles() {
    let expressions = examples("cel");
    assert!(expressions.len() > 10);
    for source in expressions {
        let expression =
            Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert!(expression.is_bool(), "{source}");
    }
    let templates = examples("template");
    assert!(templates.len() > 4);
    for source in templates {
        PathTemplate::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    }
}
