use serde_json::json;

use super::*;
use crate::condition::Operator;

fn expression(text: &str) -> RuleSource {
    RuleSource::Expression(text.to_owned())
}

fn rule(text: &str) -> Rule {
    Rule::new("", &expression(text), false).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn condition(attribute: &str, operator: Operator, values: &[&str]) -> Condition {
    Condition {
        attribute: attribute.to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    }
}

fn alice() -> Attributes {
    Attributes::from_json(&json!({
        "join": {"meta": {"join_method": "github"}, "github": {"repository": "org/app", "actor": "alice"}},
        "user": {"labels": {"team": "ci"}},
        "workload": {"unix": {"attested": true, "uid": 1000}},
    }))
    .unwrap()
}

#[test]
fn deny_wins_and_the_rule_that_decided_is_named() {
    let rules = |deny: &[&str], allow: &[&str]| {
        let list = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
        Rules::new(list(deny), list(allow)).unwrap()
    };
    let is_alice = "has(join.github) && join.github.actor == 'alice'";
    for (deny, allow, allowed, by) in [
        (&[][..], &[][..], true, None),
        (&[][..], &[is_alice][..], true, Some("allow[0]")),
        (
            &[][..],
            &["user.is_bot", is_alice][..],
            true,
            Some("allow[1]"),
        ),
        (&[is_alice][..], &[is_alice][..], false, Some("deny[0]")),
        (&["1 / 0 == 1"][..], &[is_alice][..], false, Some("deny[0]")),
        (&[][..], &["join.gitlab.sub == 'x'"][..], false, None),
    ] {
        let decision = rules(deny, allow).decide(&alice());
        assert_eq!(decision.allowed, allowed, "{deny:?} {allow:?}");
        let named = decision.rule.map(|rule| rule.to_string());
        assert_eq!(named.as_deref(), by, "{deny:?} {allow:?}");
    }
}

#[test]
fn conditions_compile_to_expressions() {
    use Operator::{Eq, In, Matches, NotEq, NotIn, Prefix};
    for (attribute, operator, values, expected) in [
        ("join.github.actor", Eq, &["alice"][..], true),
        ("join.github.actor", Eq, &["bob"][..], false),
        ("join.github.actor", NotEq, &["bob"][..], true),
        ("join.github.actor", In, &["bob", "alice"][..], true),
        ("join.github.actor", NotIn, &["bob", "alice"][..], false),
        ("join.github.actor", Matches, &["al.*"][..], true),
        ("join.github.actor", Matches, &["l"][..], false),
        ("join.github.actor", Prefix, &["al"][..], true),
        ("join.github.environment", Eq, &["x"][..], false),
        ("workload.unix.uid", Eq, &["1000"][..], true),
        ("workload.unix.attested", Eq, &["true"][..], true),
        ("user.labels.team", Eq, &["ci"][..], true),
        ("user.labels[\"team\"]", In, &["ci"][..], true),
    ] {
        let source = RuleSource::Conditions(vec![condition(attribute, operator, values)]);
        let rule = Rule::new("", &source, false)
            .unwrap_or_else(|error| panic!("{attribute} {operator}: {error}"));
        assert_eq!(
            rule.expression().holds(&alice()),
            Ok(expected),
            "{}",
            rule.expression().source()
        );
    }
}
