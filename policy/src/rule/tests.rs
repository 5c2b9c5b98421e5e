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

#[test]
fn a_condition_on_what_is_not_set_is_safe_in_both_lists() {
    use Operator::{Eq, In, Matches, NotEq, NotIn, Prefix};
    // (operator, matches in an allow rule, matches in a deny rule)
    for (operator, allows, denies) in [
        (Eq, false, false),
        (In, false, false),
        (Matches, false, false),
        (Prefix, false, false),
        (NotEq, false, true),
        (NotIn, false, true),
    ] {
        for attribute in [
            "join.gitlab.ref",
            "join.github.environment",
            "user.labels.other",
        ] {
            let conditions = vec![condition(attribute, operator, &["x"])];
            let rule = Rule::new("", &RuleSource::Conditions(conditions), false).unwrap();
            let allow = Rules::new(vec![], vec![rule.clone()]).unwrap();
            assert_eq!(
                allow.decide(&alice()).allowed,
                allows,
                "allow {attribute} {operator}"
            );
            let deny = Rules::new(vec![rule], vec![]).unwrap();
            assert_eq!(
                !deny.decide(&alice()).allowed,
                denies,
                "deny {attribute} {operator}"
            );
        }
    }
}

/// A value is a value, whatever is in it.
#[test]
fn values_of_conditions_cannot_leave_their_place() {
    for value in [
        "\" || true || \"",
        "x\\\" || user.is_bot || \"",
        "\n\r\u{2028}\0",
        "{{ user.name }}",
        "'''",
    ] {
        for operator in [Operator::Eq, Operator::In] {
            let conditions = vec![condition("user.bot_name", operator, &[value])];
            let rule = Rule::new("", &RuleSource::Conditions(conditions), false).unwrap();
            for (name, expected) in [("y", false), (value, true)] {
                let mut attributes = alice();
                attributes
                    .set("user.bot_name", crate::Value::String(name.to_owned()))
                    .unwrap();
                assert_eq!(
                    rule.expression().holds(&attributes),
                    Ok(expected),
                    "{value:?}"
                );
            }
        }
    }
    // Nor can a pattern close the bracket that makes it match the whole.
    let conditions = vec![condition(
        "join.github.actor",
        Operator::Matches,
        &["x)|(.*"],
    )];
    Rule::new("", &RuleSource::Conditions(conditions), false).unwrap_err();
    let conditions = vec![condition(
        "join.github.actor",
        Operator::Matches,
        &["x|ali"],
    )];
    let rule = Rule::new("", &RuleSource::Conditions(conditions), false).unwrap();
    assert_eq!(rule.expression().holds(&alice()), Ok(false));
}

#[test]
fn mistakes_in_rules_name_the_part() {
    use Operator::{Eq, Matches, NotEq, Prefix};
    let second = |attribute: &str, operator, values: &[&str]| {
        let first = condition("user.name", Eq, &["x"]);
        RuleSource::Conditions(vec![first, condition(attribute, operator, values)])
    };
    for (source, verified, expected) in [
        (expression(""), false, "expression: is empty"),
        (
            expression("user.name"),
            false,
            "expression: a rule is true or false; this is a string",
        ),
        (
            expression("true &&\n usr.name == 'x'"),
            false,
            "expression, line 2, column 2: `usr.name` is not an attribute; did you mean `user.name`?",
        ),
        (
            expression("user.is_bot && workload.unix.uid == 0"),
            true,
            "expression, line 1, column 16: the rule requires verified attributes, and `workload.unix.uid` is only asserted by the agent",
        ),
        (
            expression("has(workload.unix)"),
            true,
            "expression, line 1, column 5: the rule requires verified attributes",
        ),
        (
            RuleSource::Conditions(vec![]),
            false,
            "conditions: is empty",
        ),
        (
            second("user.nme", Eq, &["x"]),
            false,
            "conditions[1].attribute: `user.nme` is not an attribute; did you mean `user.name`?",
        ),
        (
            second("join.github", Eq, &["x"]),
            false,
            "conditions[1].attribute: `join.github` is a group of attributes",
        ),
        (
            second("user.traits.team", Eq, &["x"]),
            false,
            "conditions[1].attribute: `user.traits.team` is a list of strings, which has no single value",
        ),
        (
            second("user.name + user.name", Eq, &["x"]),
            false,
            "conditions[1].attribute: \"user.name + user.name\" is not the name of an attribute",
        ),
        (
            second("", Eq, &["x"]),
            false,
            "conditions[1].attribute: is missing",
        ),
        (
            second("user.name", Eq, &[]),
            false,
            "conditions[1].values: `eq` needs a value",
        ),
        (
            second("user.name", Eq, &["x", "y"]),
            false,
            "conditions[1].values: `eq` takes one value, not 2",
        ),
        (
            second("user.name", NotEq, &[""]),
            false,
            "conditions[1].values[0]: an attribute is never empty",
        ),
        (
            second("user.is_bot", Eq, &["yes"]),
            false,
            "conditions[1].values[0]: the attribute is `true` or `false`, never \"yes\"",
        ),
        (
            second("workload.unix.uid", Eq, &["007"]),
            false,
            "conditions[1].values[0]: the attribute is a whole number, never \"007\"",
        ),
        (
            second("user.name", Prefix, &[""]),
            false,
            "conditions[1].values[0]: every text begins with the empty one",
        ),
        (
            second("user.name", Matches, &["("]),
            false,
            "conditions[1].values[0]: \"(\" is not a regular expression",
        ),
        (
            second("workload.unix.uid", Eq, &["0"]),
            true,
            "conditions: the rule requires verified attributes",
        ),
    ] {
        let error = Rule::new("", &source, verified).expect_err(expected);
        assert!(
            error.to_string().starts_with(expected),
            "{error}\n{expected}"
        );
    }
}

#[test]
fn a_deny_rule_must_ask_for_what_not_every_caller_has() {
    for (source, expected) in [
        ("has(join.github) && join.github.actor == 'x'", None),
        ("has(join.github.sha) && join.github.actor == 'x'", None),
        ("!has(join.github) || join.github.actor == 'x'", None),
        (
            "has(user.labels.team) && user.labels[\"team\"] == 'x'",
            None,
        ),
        ("'team' in user.traits && 'x' in user.traits.team", None),
        ("user.name == 'x'", None),
        ("join.github.actor == 'x'", Some("has(join.github) && …")),
        (
            "has(join.gitlab) && join.github.actor == 'x'",
            Some("has(join.github) && …"),
        ),
        (
            "has(workload.kubernetes) && workload.kubernetes.container.name == 'x'",
            Some("has(workload.kubernetes.container) && …"),
        ),
        (
            "user.labels.team == 'x'",
            Some("has(user.labels.team) && …"),
        ),
        (
            "'x' in user.traits[\"team\"]",
            Some("\"team\" in user.traits && …"),
        ),
        (
            "has(user.labels.other) && user.labels.team == 'x'",
            Some("has(user.labels.team) && …"),
        ),
    ] {
        Rules::new(vec![], vec![rule(source)]).unwrap_or_else(|error| panic!("{source}: {error}"));
        let result = Rules::new(vec![rule("user.is_bot"), rule(source)], vec![]);
        let suggestion = result.err().map(|error| {
            assert_eq!(error.part, "deny[1].expression", "{source}");
            error.suggestion.unwrap()
        });
        assert_eq!(suggestion.as_deref(), expected, "{source}");
    }
}

#[test]
fn explain_shows_every_rule_and_what_decided() {
    let named = Rule::new(
        "only alice",
        &expression("join.github.actor == 'alice'"),
        true,
    )
    .unwrap();
    let rules = Rules::new(
        vec![rule("1 / 0 == 0")],
        vec![rule("join.gitlab.sub == 'x'"), named],
    )
    .unwrap();
    let overflow = "`1 / 0` is not a number of 64 bits";
    let unset = "attribute `join.gitlab.sub` is not set";
    assert_eq!(
        serde_json::to_value(rules.explain(&alice())).unwrap(),
        json!({
            "decision": {
                "allowed": false,
                "rule": {"list": "deny", "index": 0, "description": ""},
                "reason": format!("a deny rule cannot be evaluated, which denies: {overflow}"),
            },
            "rules": [
                {
                    "list": "deny", "index": 0, "description": "", "expression": "1 / 0 == 0",
                    "matched": true, "error": overflow,
                    "trace": {"expression": "1 / 0 == 0", "start": 0, "error": overflow, "parts": [
                        {"expression": "1 / 0", "start": 0, "error": overflow},
                    ]},
                },
                {
                    "list": "allow", "index": 0, "description": "", "expression": "join.gitlab.sub == 'x'",
                    "matched": false, "error": unset,
                    "trace": {"expression": "join.gitlab.sub == 'x'", "start": 0, "error": unset, "parts": [
                        {"expression": "join.gitlab.sub", "start": 0, "error": unset},
                    ]},
                },
                {
                    "list": "allow", "index": 1, "description": "only alice",
                    "expression": "join.github.actor == 'alice'", "matched": true,
                    "trace": {"expression": "join.github.actor == 'alice'", "start": 0, "value": true, "parts": [
                        {"expression": "join.github.actor", "start": 0, "value": "alice"},
                    ]},
                },
            ],
        })
    );
}

/// A comment in the name would take what comes after it out of the rule: the operator,
/// and every condition that follows.
#[test]
fn the_attribute_of_a_condition_is_a_name_and_nothing_else() {
    for name in [
        "user.is_bot //",
        "user.is_bot // ",
        "user.is_bot//\n",
        "user.is_bot ",
        " user.is_bot",
        "user. is_bot",
        "user.labels.team//",
        "user.labels[\"team\"]//",
        "user.labels[ \"team\"]",
    ] {
        let conditions = RuleSource::Conditions(vec![
            condition(name, Operator::NotEq, &["true"]),
            condition("user.bot_name", Operator::Eq, &["nobody"]),
        ]);
        let error = Rule::new("", &conditions, false).expect_err(name);
        assert_eq!(error.part, "conditions[0].attribute", "{name:?}: {error}");
    }
    for name in ["user.labels.team", "user.labels[\"te//am\"]", "user.is_bot"] {
        let conditions = RuleSource::Conditions(vec![condition(name, Operator::Eq, &["true"])]);
        Rule::new("", &conditions, false).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

mod signatures {
    use super::*;

    fn rules(expression: &str) -> Rules {
        let source = RuleSource::Expression(expression.to_owned());
        Rules::new(vec![], vec![Rule::new("", &source, false).unwrap()]).unwrap()
    }

    #[test]
    fn a_policy_that_nobody_looked_at_is_not_satisfied() {
        let rules = rules(r#"sigstore.policy_satisfied("release")"#);
        assert!(!rules.decide(&Attributes::new()).allowed);
        let mut other = Attributes::new();
        other.set_signature_policy("releases", Ok(()));
        assert!(!rules.decide(&other).allowed);
    }

    #[test]
    fn all_policies_of_a_call_must_be_satisfied() {
        let rules = rules(r#"sigstore.policy_satisfied("built", "scanned")"#);
        assert_eq!(
            rules.signature_policies().into_iter().collect::<Vec<_>>(),
            ["built", "scanned"]
        );
        let mut attributes = Attributes::new();
        attributes.set_signature_policy("built", Ok(()));
        attributes.set_signature_policy("scanned", Err("no attestation".to_owned()));
        assert!(!rules.decide(&attributes).allowed);
        attributes.set_signature_policy("scanned", Ok(()));
        assert!(rules.decide(&attributes).allowed);
    }

    #[test]
    fn an_explanation_tells_of_each_policy_why_it_is_not_satisfied() {
        let rules = rules(r#"sigstore.policy_satisfied("built", "scanned")"#);
        let mut attributes = Attributes::new();
        attributes.set_signature_policy("built", Ok(()));
        attributes.set_signature_policy("scanned", Err("no attestation".to_owned()));
        let trace = &rules.explain(&attributes).rules[0].trace;
        let parts: Vec<_> = (trace.parts.iter())
            .map(|part| (part.expression.as_str(), part.error.as_deref()))
            .collect();
        assert_eq!(
            parts,
            [
                (r#""built""#, None),
                (r#""scanned""#, Some("no attestation"))
            ]
        );
    }

    #[test]
    fn the_image_is_only_asserted() {
        let source = RuleSource::Expression(r#"sigstore.policy_satisfied("release")"#.to_owned());
        let error = Rule::new("", &source, true).unwrap_err();
        assert!(
            error.message.contains("workload.sigstore.image_digest"),
            "{error}"
        );
    }

    #[test]
    fn a_denying_rule_denies_whom_no_policy_vouches_for() {
        let source = RuleSource::Expression(r#"!sigstore.policy_satisfied("release")"#.to_owned());
        let rules = Rules::new(vec![Rule::new("", &source, false).unwrap()], vec![]).unwrap();
        assert!(!rules.decide(&Attributes::new()).allowed);
    }
}
