use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::attributes::Value;

fn caller() -> Attributes {
    Attributes::from_json(&json!({
        "join": {"github": {"repository": "org/app", "actor": "alice"}},
        "user": {"labels": {"team": "ci", "empty": ""}, "traits": {"team": ["a"]}, "is_bot": true},
        "workload": {"unix": {"uid": 1000}},
    }))
    .unwrap()
}

#[test]
fn values_are_put_in_place() {
    for (template, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("{{join.github.actor}}", "alice"),
        (
            "a {{ join.github.actor }} b {{ workload.unix.uid }}{{ user.is_bot }} c",
            "a alice b 1000true c",
        ),
        ("{{ '}}' }} {{ \"{{\" }} {{ {'a': 'b'}['a'] }}", "}} {{ b"),
        ("{{ {'a': {'b': 'c'}['b']}['a'] }}", "c"),
        (
            "{{ has(join.github.environment) ? join.github.environment : 'none' }}",
            "none",
        ),
        ("{ single } braces", "{ single } braces"),
        ("é{{ 'ü' }}", "éü"),
    ] {
        let compiled =
            Template::compile(template).unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!(
            compiled.render(&caller()).as_deref(),
            Ok(expected),
            "{template}"
        );
        assert_eq!(
            compiled.is_literal(),
            !template.contains("{{"),
            "{template}"
        );
    }
}

#[test]
fn mistakes_have_their_place_in_the_whole_text() {
    for (template, line, column, message) in [
        (
            "/ci/{{ join.github.actr }}",
            1,
            8,
            "`join.github.actr` is not an attribute",
        ),
        (
            "é\n{{ 'é' + usr.name }}",
            2,
            10,
            "`usr.name` is not an attribute",
        ),
        ("a {{ user.name", 1, 3, "`{{` without a `}}` after it"),
        ("a }} b", 1, 3, "`}}` without a `{{` before it"),
        ("a {{ }}", 1, 5, "is empty"),
        ("a {{ user.name } }}", 1, 16, "an expression ends with `}}`"),
        (
            "{{ user.traits.team }}",
            1,
            4,
            "`user.traits.team` is a list of strings, which has no single value",
        ),
        (
            "{{ user.labels }}",
            1,
            4,
            "`user.labels` is a map of strings, which has no single value",
        ),
        ("{{ 'a }}", 1, 4, "no closing quote"),
        ("{{ user.name == 1 }}", 1, 4, "does not go with"),
    ] {
        let error = Template::compile(template).expect_err(template);
        assert!(error.message.contains(message), "{template}: {error}");
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{template}: {error}"
        );
    }
    Template::compile(&"x".repeat(MAX_TEMPLATE)).unwrap();
    Template::compile(&"x".repeat(MAX_TEMPLATE + 1)).unwrap_err();
}

#[test]
fn a_missing_value_fails_the_whole_and_is_named() {
    for (template, message) in [
        (
            "x{{ join.github.sha }}",
            "`{{ join.github.sha }}`: attribute `join.github.sha` is not set",
        ),
        (
            "{{ join.github.environment }}",
            "attribute `join.github.environment` is not set",
        ),
        (
            "{{ join.gitlab.sub + 'x' }}",
            "attribute `join.gitlab.sub` is not set",
        ),
        (
            "{{ user.labels.empty }}",
            "`{{ user.labels.empty }}` is empty",
        ),
        (
            "{{ user.labels.other }}",
            "`user.labels` has no entry \"other\"",
        ),
        ("{{ join.github.actor.replace('alice', '') }}", "is empty"),
        ("{{ user.traits.team[1] }}", "has 1 entries, none at 1"),
    ] {
        let error = Template::compile(template)
            .unwrap()
            .render(&caller())
            .expect_err(template);
        assert!(error.to_string().contains(message), "{template}: {error}");
    }
}

#[test]
fn paths_are_those_of_spiffe_ids() {
    for (template, expected) in [
        ("/a/b-c/d_e.f", Ok("/a/b-c/d_e.f")),
        (
            "/ci/{{ join.github.actor }}/x-{{join.github.repository.split('/')[1]}}",
            Ok("/ci/alice/x-app"),
        ),
        ("/{{ workload.unix.uid }}", Ok("/1000")),
        ("", Err((1, "begins with `/`"))),
        ("ci", Err((1, "begins with `/`"))),
        ("{{ join.github.actor }}", Err((1, "begins with `/`"))),
        ("/", Err((2, "empty segment"))),
        ("/a/", Err((4, "empty segment"))),
        ("/a//b", Err((4, "empty segment"))),
        ("/a/./b", Err((5, "a segment `.`"))),
        ("/{{ join.github.actor }}/..", Err((28, "a segment `..`"))),
        ("/{{ join.github.actor }}//b", Err((26, "empty segment"))),
        ("/a b", Err((3, "' ' cannot be in the path"))),
        (
            "/{{ join.github.actor }}/é",
            Err((26, "'é' cannot be in the path")),
        ),
        ("/a%2fb", Err((3, "'%' cannot be in the path"))),
    ] {
        match (PathTemplate::compile(template), expected) {
            (Ok(path), Ok(expected)) => assert_eq!(
                path.render(&caller()).as_deref(),
                Ok(expected),
                "{template}"
            ),
            (Err(error), Err((column, message))) => {
                assert!(error.message.contains(message), "{template}: {error}");
                assert_eq!(error.column, column, "{template}: {error}");
            }
            (result, _) => panic!("{template}: {result:?}"),
        }
    }
}

/// B2: no attribute value climbs out of its place in a path.
#[test]
fn a_value_cannot_leave_its_segment() {
    for value in [
        "/",
        "a/b",
        "/a",
        "a/",
        "..",
        ".",
        "../x",
        "%2f",
        "%2e%2e",
        "%",
        "a b",
        " ",
        "\t",
        "\n",
        "\0",
        "é",
        "ａ",
        "／",
        "\u{2215}",
        "\u{202e}a",
        "a\u{301}",
        "\\",
        "?",
        "#",
        ":",
        "@",
        "a;b",
        "{{ user.name }}",
        &"x".repeat(2049),
    ] {
        for template in [
            "/a/{{ user.name }}/b",
            "/a/{{ user.name }}",
            "/{{ user.name }}/b",
        ] {
            let mut attributes = Attributes::new();
            attributes
                .set("user.name", Value::String(value.to_owned()))
                .unwrap();
            let result = PathTemplate::compile(template).unwrap().render(&attributes);
            assert!(
                matches!(
                    result,
                    Err(RenderError::Segment { .. } | RenderError::Relative { .. })
                ),
                "{value:?}: {result:?}"
            );
        }
    }
    // Dots that come together only when the segment is put together.
    let mut attributes = Attributes::new();
    attributes
        .set("user.name", Value::String(".".to_owned()))
        .unwrap();
    for template in [
        "/a/.{{ user.name }}/b",
        "/a/{{ user.name }}.",
        "/{{ user.name }}{{ user.name }}/x",
    ] {
        let result = PathTemplate::compile(template).unwrap().render(&attributes);
        assert_eq!(
            result,
            Err(RenderError::Relative {
                segment: "..".to_owned()
            }),
            "{template}"
        );
    }
    let path = PathTemplate::compile("/a/x{{ user.name }}y").unwrap();
    assert_eq!(path.render(&attributes).as_deref(), Ok("/a/x.y"));
    assert_eq!(
        path.render(&Attributes::new()).unwrap_err().to_string(),
        "`{{ user.name }}`: attribute `user.name` is not set"
    );
}

#[test]
fn explain_shows_the_result_and_every_expression() {
    let path = PathTemplate::compile("/ci/{{ join.github.actor }}/{{ join.github.sha }}").unwrap();
    assert_eq!(
        serde_json::to_value(path.explain(&caller())).unwrap(),
        json!({
            "template": "/ci/{{ join.github.actor }}/{{ join.github.sha }}",
            "error": "`{{ join.github.sha }}`: attribute `join.github.sha` is not set",
            "parts": [
                {"expression": "join.github.actor", "start": 0, "value": "alice"},
                {"expression": "join.github.sha", "start": 0, "error": "attribute `join.github.sha` is not set"},
            ],
        })
    );
}

proptest! {
    /// Whatever the values, a path has the segments of its template.
    #[test]
    fn a_path_has_the_segments_of_its_template(
        one in "[a-zA-Z./%\\\\ \u{e9}-]{0,6}|\\PC{0,8}|[a-z.]{1,4}",
        two in "[a-z./-]{0,4}|\\PC*",
    ) {
        let mut attributes = Attributes::new();
        attributes.set("user.name", Value::String(one.clone())).unwrap();
        attributes.set("user.bot_name", Value::String(two.clone())).unwrap();
        for (template, segments) in [
            ("/{{ user.name }}/b", 2),
            ("/a/{{ user.name }}{{ user.bot_name }}", 2),
            ("/a/.{{ user.name }}/{{ user.bot_name.replace('.', '/').replace('a', '.') }}", 3),
        ] {
            if let Ok(path) = PathTemplate::compile(template).unwrap().render(&attributes) {
                let id = identity::SpiffeId::parse(&format!("spiffe://example.org{path}"));
                prop_assert!(id.is_ok(), "{}: {:?}", path, id);
                prop_assert_eq!(path.split('/').count(), segments + 1, "{}", path);
            }
        }
        let fits = |value: &str| {
            !value.is_empty() && value != "." && value != ".."
                && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let path = PathTemplate::compile("/{{ user.name }}/b").unwrap().render(&attributes);
        prop_assert_eq!(path.is_ok(), fits(&one));
    }
}
