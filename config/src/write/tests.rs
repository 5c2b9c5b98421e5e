use proptest::prelude::*;

use super::write;
use crate::{Document, Free};

/// Reads what stands under `a`, and keeps null.
fn read_back(text: &str) -> Free {
    let documents =
        Document::parse_all("a.yaml", text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    let read = documents[0].resolve(|fields| fields.free("a"));
    read.unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
}

fn wrapped(value: Free) -> Free {
    Free::Map(vec![("a".to_owned(), Free::List(vec![value]))])
}

fn value() -> impl Strategy<Value = Free> {
    let text = prop_oneof![
        any::<String>(),
        "[ a-z#:,|>'\"\\n\\t\\\\-]{0,24}",
        "([a-z{}\"' ]{0,12}\n){0,4}[a-z ]{0,4}",
        "[-+.0-9exo_]{0,8}",
        "true|null|~|<<|---|yes|\\.inf",
    ];
    let leaf = prop_oneof![
        Just(Free::Null),
        any::<bool>().prop_map(Free::Boolean),
        any::<i64>().prop_map(|number| Free::Integer(number.into())),
        any::<u64>().prop_map(|number| Free::Integer(number.into())),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(Free::Float),
        text.prop_map(Free::Text),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![
            "[a-z]{1,6}",
            any::<String>().prop_map(|key| key.chars().take(64).collect())
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Free::List),
            prop::collection::btree_map(key, inner, 0..5)
                .prop_map(|entries| Free::Map(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(value in value()) {
        let wrapped = wrapped(value);
        let text = write(&wrapped);
        let Free::Map(entries) = wrapped else { unreachable!() };
        prop_assert_eq!(read_back(&text), entries[0].1.clone(), "{}", text);
    }
}

#[test]
fn people_can_read_it() {
    let text = |text: &str| Free::Text(text.to_owned());
    let map = |entries: Vec<(&str, Free)>| {
        let entries = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Free::Map(entries.collect())
    };
    let value = map(vec![
        ("name", text("web")),
        ("id", text("/apps/{{ user.name }}")),
        (
            "short",
            Free::List(vec![text("a b"), text("on"), Free::Integer(1)]),
        ),
        ("none", Free::List(vec![])),
        (
            "rules",
            Free::List(vec![
                map(vec![("expression", text("a == \"b\"\n  && c\n"))]),
                map(vec![("description", text("it's")), ("more", map(vec![]))]),
            ]),
        ),
    ]);
    assert_eq!(
        write(&value),
        "\
name: web
id: '/apps/{{ user.name }}'
short: [a b, 'on', 1]
none: []
rules:
  - expression: |
      a == \"b\"
        && c
  - description: 'it''s'
    more: {}
"
    );
}
