use serde_json::json;

use super::*;

mod conformance;
mod differential;
mod guards;

fn github() -> Attributes {
    Attributes::from_json(&json!({
        "join": {
            "meta": {"join_method": "github"},
            "github": {
                "repository": "org/app", "repository_owner": "org", "ref": "refs/heads/main", "actor": "alice",
            },
            "circleci": {"context_ids": ["c1", "c2"]},
        },
        "user": {
            "name": "bot-ci", "is_bot": true,
            "labels": {"team": "ci"}, "traits": {"team": ["a", "b"], "none": []},
        },
        "workload": {"unix": {"attested": true, "uid": 1000, "pid": 7}},
    }))
    .unwrap()
}

#[test]
fn expressions_have_values() {
    let attributes = github();
    for (source, expected) in [
        (r#"join.github.repository == "org/app""#, json!(true)),
        (
            "join.github.ref.startsWith('refs/heads/') && user.is_bot",
            json!(true),
        ),
        (r#""a" in user.traits["team"]"#, json!(true)),
        (r#""z" in user.traits.team"#, json!(false)),
        ("user.labels.team", json!("ci")),
        (
            "has(user.labels.team) && has(user.traits.none) && !has(user.labels.other)",
            json!(true),
        ),
        ("'team' in user.labels", json!(true)),
        ("has(join.github) && !has(join.gitlab)", json!(true)),
        (
            "has(join.github.environment) && join.github.environment == 'x'",
            json!(false),
        ),
        (
            "!has(join.github.environment) || join.github.environment == 'x'",
            json!(true),
        ),
        (
            "has(join.github.environment) ? join.github.environment : 'none'",
            json!("none"),
        ),
        (
            "workload.unix.uid >= 1000 && workload.unix.pid % 5 == 2",
            json!(true),
        ),
        ("user.traits.team.exists(t, t == 'b')", json!(true)),
        ("user.traits.team.all(t, t == 'b')", json!(false)),
        ("user.traits.team.exists_one(t, t == 'b')", json!(true)),
        ("user.traits.team.map(t, t + '!')", json!(["a!", "b!"])),
        ("user.traits.team.map(t, t == 'a', t + '!')", json!(["a!"])),
        ("user.traits.team.filter(t, t != 'a')", json!(["b"])),
        ("user.traits.exists(name, name == 'team')", json!(true)),
        (
            "join.circleci.context_ids.exists(c, user.traits.team.exists(t, c == t + '1'))",
            json!(false),
        ),
        ("join.github.repository.split('/')[1]", json!("app")),
        (
            "join.github.repository.replace('/', '-').upperAscii()",
            json!("ORG-APP"),
        ),
        (
            "' x '.trim() + ['a', 'b'].join('+') + string(1) + string(true)",
            json!("xa+b1true"),
        ),
        (
            "join.github.repository.matches('^org/[a-z]+$')",
            json!(true),
        ),
        ("matches('Ab', '(?i)^aB$')", json!(true)),
        ("size('äé') + size([1, 2]) + user.labels.size()", json!(5)),
        (
            "{'main': 'prod', 'dev': 'test'}[join.github.ref.split('/')[2]]",
            json!("prod"),
        ),
        (
            "strings.lower('A') + strings.upper('b') + strings.replaceall('aa', 'a', 'c')",
            json!("aBcc"),
        ),
        ("strings.split('a,b', ',')", json!(["a", "b"])),
        ("email.local('alice@example.com')", json!("alice")),
        ("int('42') == 0x2A && -int('-7') == 7", json!(true)),
        ("join.gitlab.sub == 'x' || user.is_bot", json!(true)),
        ("join.gitlab.sub == 'x' && !user.is_bot", json!(false)),
        (
            "[join.gitlab.sub == 'x', true].exists(b, b)",
            serde_json::Value::Null,
        ),
        ("user.is_bot // a comment", json!(true)),
        (
            r#"r'\d' + '''it's''' + "\u00e9\x41\101""#,
            json!("\\dit'sé\u{41}A"),
        ),
    ] {
        let expression =
            Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let value = expression.evaluate(&attributes);
        match expected {
            serde_json::Value::Null => assert!(value.is_err(), "{source}: {value:?}"),
            expected => assert_eq!(value, Ok(expected), "{source}"),
        }
    }
}

/// What is wrong, where, and what was meant.
#[test]
fn mistakes_are_found_when_the_expression_is_written() {
    for (source, line, column, message, suggestion) in [
        (
            "join.github.repositry == 'x'",
            1,
            1,
            "`join.github.repositry` is not an attribute",
            Some("join.github.repository"),
        ),
        (
            "user.is_bot &&\n  join.kubernetes.namespace == 'x'",
            2,
            3,
            "`join.kubernetes.namespace` is not an attribute",
            Some("join.kubernetes.service_account.namespace"),
        ),
        ("é == 'x'", 1, 1, "'é' has no meaning here", None),
        ("'é' == acter", 1, 8, "`acter` is not an attribute", None),
        (
            "join.github == 'x'",
            1,
            1,
            "`join.github` is a group of attributes; it has `sub`, `actor`",
            None,
        ),
        (
            "join.github.environment == 'x'",
            1,
            1,
            "`join.github.environment` is optional; ask first whether it is set",
            Some("has(join.github.environment) && …"),
        ),
        (
            "join.github.environment == 'x' && has(join.github.environment)",
            1,
            1,
            "is optional",
            Some("has(join.github.environment) && …"),
        ),
        (
            "has(join.github.environment) || join.github.environment == 'x'",
            1,
            33,
            "is optional",
            Some("has(join.github.environment) && …"),
        ),
        (
            "has(join.github) && join.github.environment == 'x'",
            1,
            21,
            "is optional",
            Some("has(join.github.environment) && …"),
        ),
        (
            "has(join.githb)",
            1,
            5,
            "`join.githb` is not an attribute",
            Some("join.github"),
        ),
        (
            "has(join.github.actor.x)",
            1,
            5,
            "`join.github.actor` is a string; has(…) asks",
            None,
        ),
        ("has(1)", 1, 1, "has(…) asks whether", None),
        ("has(user)", 1, 1, "has(…) asks whether", None),
        (
            "user.is_bot == 'true'",
            1,
            1,
            "`==` does not go with a bool and a string",
            None,
        ),
        (
            "workload.unix.uid == '0'",
            1,
            1,
            "`==` does not go with an int and a string",
            None,
        ),
        (
            "workload.unix.uid < user.is_bot",
            1,
            1,
            "`<` does not go with an int and a bool",
            None,
        ),
        (
            "user.traits.team == 'a'",
            1,
            1,
            "membership is asked with `value in list`",
            None,
        ),
        (
            "'a' in 'abc'",
            1,
            1,
            "part of a text is asked with `text.contains(part)`",
            None,
        ),
        (
            "1 in user.traits.team",
            1,
            1,
            "`in` does not go with an int and a list of strings",
            None,
        ),
        (
            "user.name + 1 == 'x'",
            1,
            1,
            "`+` does not go with a string and an int",
            None,
        ),
        (
            "!user.name",
            1,
            2,
            "`user.name` is a string, not a bool",
            None,
        ),
        (
            "-user.name == 1",
            1,
            2,
            "`user.name` is a string, not an int",
            None,
        ),
        (
            "user.name && true",
            1,
            1,
            "`user.name` is a string, not a bool",
            None,
        ),
        (
            "user.is_bot ? 1 : 'x'",
            1,
            19,
            "one branch is an int, the other a string",
            None,
        ),
        (
            "user.name.foo",
            1,
            1,
            "`user.name` is a string; it has no entries",
            None,
        ),
        (
            "user.labels[1]",
            1,
            13,
            "its entries are named by a string, not an int",
            None,
        ),
        (
            "user.traits.team['a']",
            1,
            18,
            "its entries are named by an int, not a string",
            None,
        ),
        (
            "[1, 'a']",
            1,
            5,
            "this list holds ints, this is a string",
            None,
        ),
        (
            "[['a']]",
            1,
            2,
            "a list holds strings, ints or bools; this is a list of strings",
            None,
        ),
        (
            "{'a': 1, 'a': 2}",
            1,
            10,
            "the key \"a\" is here twice",
            None,
        ),
        ("{1: 2}", 1, 2, "`1` is an int, not a string", None),
        (
            "user.name.startWith('x')",
            1,
            11,
            "there is no function `startWith`",
            Some("startsWith"),
        ),
        (
            "startsWith(user.name, 'x')",
            1,
            1,
            "`startsWith` is written `(string).startsWith(string)`",
            None,
        ),
        (
            "user.name.startsWith(1)",
            1,
            11,
            "`startsWith` is written `(string).startsWith(string)`",
            None,
        ),
        (
            "user.name.matches(user.bot_name)",
            1,
            19,
            "the pattern of `matches` must be a text written here",
            None,
        ),
        (
            "user.name.matches('(')",
            1,
            19,
            "\"(\" is not a regular expression",
            None,
        ),
        (
            "user.name.matches('(a{1000}){1000}')",
            1,
            19,
            "it is too large",
            None,
        ),
        (
            "ifelse(true, 1, 2)",
            1,
            1,
            "it is written `condition ? one : other`",
            None,
        ),
        (
            "sigstore.policy_satisfied()",
            1,
            1,
            "takes the names of 1 to 16 resources `sigstore_policy`",
            None,
        ),
        (
            "sigstore.policy_satisfied(user.name)",
            1,
            27,
            "must be texts written here",
            None,
        ),
        (
            "sigstore.policy_satisfies('x')",
            1,
            1,
            "there is no function `sigstore.policy_satisfies`",
            Some("sigstore.policy_satisfied"),
        ),
        (
            "user.name.exists(x, true)",
            1,
            1,
            "`user.name` is a string, not a list or map",
            None,
        ),
        (
            "user.traits.team.exists(x, x)",
            1,
            28,
            "`x` is a string, not a bool",
            None,
        ),
        (
            "user.traits.team.exists('x', true)",
            1,
            1,
            "is written as in",
            None,
        ),
        (
            "user.traits.team.map(x, user.traits.team) == []",
            1,
            25,
            "not of list of stringss",
            None,
        ),
        ("user.name = 'x'", 1, 11, "equality is written `==`", None),
        ("user.is_bot & true", 1, 13, "`and` is written `&&`", None),
        ("user.is_bot and true", 1, 13, "`and` is written `&&`", None),
        ("not user.is_bot", 1, 1, "`not` is written `!`", None),
        ("user.name == null", 1, 14, "there is no `null` here", None),
        ("1.5 > 1", 1, 1, "only whole numbers", None),
        ("1u == 1", 1, 1, "only whole numbers", None),
        ("b'a' == b'a'", 1, 1, "bytes", None),
        (
            "user.name == 'x",
            1,
            14,
            "this text has no closing quote",
            None,
        ),
        (r"user.name == 'a\d'", 1, 16, r"`\d` is not an escape", None),
        (
            "9223372036854775808 == 1",
            1,
            1,
            "is not a number of 64 bits",
            None,
        ),
        (
            "user.is_bot)",
            1,
            12,
            "expected the end of the expression or an operator, found `)`",
            None,
        ),
        ("(user.is_bot", 1, 13, "expected `)`, found the end", None),
        ("", 1, 1, "expected a value, found the end", None),
        (
            "size(1)",
            1,
            1,
            "`size` is asked of one string, list or map",
            None,
        ),
        ("for == 1", 1, 1, "`for` is a reserved word of CEL", None),
    ] {
        let error = Expression::compile(source).expect_err(source);
        assert!(error.message.contains(message), "{source}: {error}");
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{source}: {error}"
        );
        assert_eq!(error.suggestion.as_deref(), suggestion, "{source}: {error}");
    }
}

/// What fails when evaluated names what was not there.
#[test]
fn errors_of_evaluation_name_what_was_missing() {
    for (source, message) in [
        (
            "join.gitlab.sub == 'x'",
            "attribute `join.gitlab.sub` is not set",
        ),
        (
            "user.labels.other == 'x'",
            "`user.labels` has no entry \"other\"",
        ),
        (
            "'x' in user.traits['other']",
            "`user.traits` has no entry \"other\"",
        ),
        (
            "user.traits.team[2] == 'x'",
            "`user.traits.team` has 2 entries, none at 2",
        ),
        (
            "user.traits.team[-1] == 'x'",
            "`user.traits.team` has 2 entries, none at -1",
        ),
        ("1 / 0 == 1", "`1 / 0` is not a number of 64 bits"),
        (
            "9223372036854775807 + 1 == 1",
            "`9223372036854775807 + 1` is not a number of 64 bits",
        ),
        ("-(-9223372036854775808) == 1", "is not a number of 64 bits"),
        ("int(user.name) == 1", "\"bot-ci\" is not a whole number"),
        (
            "email.local(user.name) == 'x'",
            "\"bot-ci\" is not an e-mail address",
        ),
        ("{'a': 1}[user.name] == 1", "has no entry \"bot-ci\""),
    ] {
        let expression =
            Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let error = expression.holds(&github()).expect_err(source);
        assert!(error.to_string().contains(message), "{source}: {error}");
    }
}

#[test]
fn a_trace_shows_every_part_that_was_evaluated() {
    let source = "join.github.actor == 'bob' || (has(join.gitlab) && join.gitlab.sub == 'x') || join.gitlab.ref == 'y'";
    let trace = Expression::compile(source).unwrap().explain(&github());
    assert_eq!(
        serde_json::to_value(trace).unwrap(),
        json!({
            "expression": source, "start": 0, "error": "attribute `join.gitlab.ref` is not set",
            "parts": [
                {"expression": "join.github.actor == 'bob'", "start": 0, "value": false, "parts": [
                    {"expression": "join.github.actor", "start": 0, "value": "alice"},
                ]},
                {"expression": "(has(join.gitlab) && join.gitlab.sub == 'x')", "start": 30, "value": false, "parts": [
                    {"expression": "has(join.gitlab)", "start": 31, "value": false},
                ]},
                {"expression": "join.gitlab.ref == 'y'", "start": 78, "error": "attribute `join.gitlab.ref` is not set", "parts": [
                    {"expression": "join.gitlab.ref", "start": 78, "error": "attribute `join.gitlab.ref` is not set"},
                ]},
            ],
        })
    );
    assert_eq!(
        Expression::compile("true")
            .unwrap()
            .explain(&github())
            .value,
        Some(json!(true))
    );
}

#[test]
fn equal_sources_share_one_expression() {
    let source = "user.name == 'shared by two'";
    let one = Expression::compile(source).unwrap();
    let two = Expression::compile(source).unwrap();
    assert!(Arc::ptr_eq(&one.0, &two.0));
    let lenient = Expression::compile_within(source, Purpose::Lenient, MAX_SOURCE).unwrap();
    assert!(!Arc::ptr_eq(&one.0, &lenient.0));
    let weak = Arc::downgrade(&one.0);
    drop((one, two));
    assert!(weak.upgrade().is_none());
}
