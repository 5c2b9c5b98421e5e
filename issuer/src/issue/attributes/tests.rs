use std::collections::BTreeMap;

use policy::{Attributes, Trust};
use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::{Value, json};

use super::{ASSERTED_MAX, asserted, joined, of_join, verified};
use crate::{
    access::Denial,
    issue::testing::attributes,
    resources::{BotSpec, Metadata, ResourceName},
};

fn wire(tree: &Value) -> Struct {
    fn value(json: &Value) -> Wire {
        let kind = match json {
            Value::Null => Kind::NullValue(0),
            Value::Bool(flag) => Kind::BoolValue(*flag),
            Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(items) => Kind::ListValue(ListValue {
                values: items.iter().map(value).collect(),
            }),
            Value::Object(_) => Kind::StructValue(wire(json)),
        };
        Wire { kind: Some(kind) }
    }
    let members = tree.as_object().unwrap().iter();
    Struct {
        fields: members
            .map(|(name, json)| (name.clone(), value(json)))
            .collect(),
    }
}

/// Whatever an agent sends, nothing of it is a fact that the issuer vouches for.
#[test]
fn what_an_agent_says_is_below_workload_and_asserted() {
    for tree in [
        json!({ "join": { "github": { "repository": "org/app" } }, "user": { "name": "root" } }),
        json!({ "join.github.repository": "org/app", "user.name": "root", "..join.meta.join_method": "tpm" }),
        json!({ "": { "user": { "name": "root" } }, "workload": { "unix": { "uid": 0 } } }),
        json!({ "unix": { "uid": 0, "user.name": "root", "../user.name": "root" } }),
    ] {
        let known = asserted(&wire(&tree)).unwrap();
        for (attribute, _) in known.iter() {
            assert!(
                attribute.path.starts_with("workload."),
                "{}",
                attribute.path
            );
            assert_eq!(attribute.trust, Trust::Asserted, "{}", attribute.path);
        }
    }
    // Nor does it replace one: the issuer's own are put in place beside it.
    let mut known = attributes(&json!({ "user": { "name": "bot-web" } }));
    known.merge(asserted(&wire(&json!({ "user": { "name": "root" } }))).unwrap());
    assert_eq!(known.to_json(), json!({ "user": { "name": "bot-web" } }));
}

#[test]
fn a_value_of_another_type_is_left_out_and_the_others_stay() {
    for (uid, read) in [
        (json!(1000), Some(1000_i64)),
        (json!(-1), Some(-1)),
        (
            json!(9_007_199_254_740_992_u64),
            Some(9_007_199_254_740_992),
        ),
        (json!(1e300), None),
        (json!(0.5), None),
        (json!("0"), None),
        (json!(true), None),
        (json!([0]), None),
        (json!({ "a": 0 }), None),
        (Value::Null, None),
    ] {
        let tree = json!({ "unix": { "uid": uid, "gid": 7, "binary_path": "" } });
        let known = asserted(&wire(&tree)).unwrap();
        let mut expected = json!({ "workload": { "unix": { "gid": 7 } } });
        if let Some(read) = read {
            expected["workload"]["unix"]["uid"] = json!(read);
        }
        assert_eq!(known.to_json(), expected, "{uid}");
    }
}

#[test]
fn too_much_at_once_is_refused() {
    let tree = |length: usize| wire(&json!({ "unix": { "binary_path": "a".repeat(length) } }));
    // Too long for an attribute: left out.
    assert!(asserted(&tree(ASSERTED_MAX - 64)).unwrap().is_empty());
    let refused = asserted(&tree(ASSERTED_MAX)).unwrap_err();
    assert_eq!(refused.denial, Denial::InvalidRequest);
}

#[test]
fn what_a_bot_certificate_says_of_its_join_is_read_back() {
    let known = joined(&of_join("token", ""));
    assert_eq!(
        known.to_json(),
        json!({ "join": { "meta": { "join_method": "token" } } })
    );
    let named = joined(&of_join("token", "ci"));
    assert_eq!(
        named.get("join.meta.join_token_name"),
        Some(&policy::Value::String("ci".to_owned()))
    );
}

/// Without it, `"suspended" in user.traits` would not deny.
#[test]
fn a_bot_of_which_not_all_can_be_known_gets_nothing() {
    let metadata = Metadata::named(ResourceName::parse("web").unwrap());
    let bot = |values: usize| BotSpec {
        traits: BTreeMap::from([("team".to_owned(), vec!["x".to_owned(); values])]),
        ..BotSpec::default()
    };
    let known: Attributes = verified(None, &metadata, &bot(1023)).unwrap();
    assert_eq!(known.get("user.is_bot"), Some(&policy::Value::Bool(true)));
    let refused = verified(None, &metadata, &bot(1024)).unwrap_err();
    assert_eq!(refused.denial, Denial::Damaged);
    assert!(refused.detail.contains("user.traits"), "{}", refused.detail);
}
