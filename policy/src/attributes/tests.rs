use serde_json::json;

use super::*;

#[test]
fn json_goes_in_and_comes_out_the_same() {
    let json = json!({
        "join": {"meta": {"join_method": "github"}, "github": {"actor": "alice"}, "circleci": {"context_ids": ["a", "b"]}},
        "user": {"is_bot": true, "labels": {"team": "ci"}, "traits": {"team": ["a", "b"]}},
        "workload": {"unix": {"uid": 0}},
    });
    assert_eq!(Attributes::from_json(&json).unwrap().to_json(), json);
}

#[test]
fn every_mistake_is_named() {
    let json = json!({
        "join": {"github": {"actr": "alice", "sub": 7, "ref": null}, "gitlab": "x"},
        "user": {"labels": {"team": ["ci"]}},
        "workload": {"unix": {"uid": "0"}, "extra": {}},
    });
    let AttributeErrors(errors) = Attributes::from_json(&json).unwrap_err();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "attribute `join.github.actr` is not an attribute; did you mean `join.github.actor`?",
            "attribute `join.github.sub` must be a string, is the number 7",
            "attribute `join.gitlab` is a group of attributes, not a string",
            "attribute `user.labels` must be a map of strings, but not every entry is text",
            "attribute `workload.extra` is not an attribute",
            "attribute `workload.unix.uid` must be an int, is a string",
        ]
    );
}

#[test]
fn empty_text_is_unset_and_the_later_value_stands() {
    let mut one = Attributes::new();
    one.set("user.name", Value::String("a".into())).unwrap();
    one.set("user.bot_name", Value::String("a".into())).unwrap();
    one.set("user.bot_name", Value::String(String::new()))
        .unwrap();
    assert_eq!(one.get("user.bot_name"), None);
    let mut two = Attributes::new();
    two.set("user.name", Value::String("b".into())).unwrap();
    one.merge(two);
    assert_eq!(one.to_json(), json!({"user": {"name": "b"}}));
    assert!(one.set("user.name", Value::Int(1)).is_err());
    assert!(
        one.set("user.name", Value::String("x".repeat(MAX_TEXT + 1)))
            .is_err()
    );
    assert!(
        one.set(
            "join.circleci.context_ids",
            Value::List(vec!["x".into(); MAX_ENTRIES + 1])
        )
        .is_err()
    );
}

/// What an agent sends is read before anybody knows who it is: unknown names are counted,
/// and nothing is looked for on their behalf. (A search for each took 4 s here.)
#[test]
fn a_tree_of_unknown_names_is_left_out_at_the_cost_of_reading_it() {
    let group: serde_json::Map<_, _> = (0..30_000)
        .map(|number| (format!("uid{number}"), json!(true)))
        .chain([("attested".to_owned(), json!(true))])
        .collect();
    let long = "x".repeat(60_000);
    let tree = json!({"workload": {"unix": group, long.as_str(): 1}});
    let (attributes, left_out) = Attributes::from_json_lossy(&tree);
    assert_eq!(
        attributes.to_json(),
        json!({"workload": {"unix": {"attested": true}}})
    );
    let left_out = left_out.unwrap();
    assert_eq!(left_out.count, 30_001);
    assert_eq!(left_out.first.suggestion, None);
    assert!(left_out.to_string().len() < 300, "{left_out}");
    assert!(left_out.to_string().ends_with("and 30000 more"));

    // Who may be told is told, but not for ever.
    let AttributeErrors(errors) = Attributes::from_json(&tree).unwrap_err();
    assert_eq!(errors.len(), 30_001);
    let suggested = errors.iter().filter(|error| error.suggestion.is_some());
    assert!((1..=MAX_SUGGESTED).contains(&suggested.count()));
}
