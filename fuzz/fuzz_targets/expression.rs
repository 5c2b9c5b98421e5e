//! Any text as an expression: compiles or says where it is wrong, evaluates
//! within its budget, and shows in its trace what it evaluated to.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use policy::{Attributes, Condition, Expression, Operator, Rule, RuleSource};
use serde_json::json;

static CALLER: LazyLock<Attributes> = LazyLock::new(|| {
    let json = json!({
        "join": {
            "meta": {"join_method": "github"},
            "github": {"repository": "org/app", "ref": "refs/heads/main", "actor": "alice", "sha": "a".repeat(4000)},
            "circleci": {"context_ids": vec!["context"; 1000]},
        },
        "user": {
            "name": "bot", "is_bot": true, "labels": {"team": "é\u{202e}%2f../"}, "traits": {"team": ["a", "b"], "none": []},
        },
        "workload": {"unix": {"attested": true, "uid": 0, "pid": i64::MIN}},
    });
    Attributes::from_json(&json).expect("it obeys the schema")
});

fuzz_target!(|source: &str| {
    match Expression::compile(source) {
        Ok(expression) => {
            let value = expression.evaluate(&CALLER);
            let trace = expression.explain(&CALLER);
            assert_eq!(value.is_ok(), trace.value.is_some());
            assert_eq!(value.err().map(|error| error.to_string()), trace.error);
            assert_eq!(expression.source(), source);
        }
        Err(error) => {
            let line = source
                .split('\n')
                .nth(error.line - 1)
                .expect("the line exists");
            assert!(error.column <= line.chars().count() + 1, "{error}");
        }
    }
    // The same text as the value of a condition, which must stay a value.
    for operator in Operator::ALL {
        let condition = Condition {
            attribute: "user.labels.team".to_owned(),
            operator,
            values: vec![source.to_owned()],
        };
        let rule = Rule::new("", &RuleSource::Conditions(vec![condition]), true);
        if let (Ok(rule), Operator::Eq | Operator::In) = (rule, operator) {
            let equal = source == "é\u{202e}%2f../";
            assert_eq!(rule.expression().holds(&CALLER), Ok(equal));
        }
    }
    let condition = Condition {
        attribute: source.to_owned(),
        operator: Operator::Eq,
        values: vec!["x".to_owned()],
    };
    let _ = Rule::new("", &RuleSource::Conditions(vec![condition]), false);
});
