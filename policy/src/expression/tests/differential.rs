//! Our evaluator against that of the `cel` crate, on expressions made at random.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

fn one_of(choices: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(choices)
        .prop_map(str::to_owned)
        .boxed()
}

/// Expressions of each type, `depth` parts deep.
struct Grammar {
    bools: BoxedStrategy<String>,
    ints: BoxedStrategy<String>,
    texts: BoxedStrategy<String>,
    lists: BoxedStrategy<String>,
}

impl Grammar {
    fn leaves() -> Self {
        Self {
            bools: one_of(&[
                "true",
                "false",
                "user.is_bot",
                "has(join.gitlab.sub)",
                "has(join.github.actor)",
                "has(user.labels.team)",
                "has(user.labels.other)",
                "'team' in user.traits",
                "workload.unix.attested",
            ]),
            ints: one_of(&[
                "0",
                "1",
                "-1",
                "7",
                "9223372036854775807",
                "-9223372036854775808",
                "workload.unix.uid",
                "workload.unix.pid",
                "join.gitlab.runner_id",
            ]),
            texts: one_of(&[
                "''",
                "'a'",
                "\"b\"",
                "'é/ü'",
                r"r'\d'",
                "user.name",
                "join.github.repository",
                "join.github.actor",
                "join.gitlab.sub",
                "user.labels.team",
                "user.labels['other']",
                "user.traits.team[1]",
                "user.traits.team[7]",
            ]),
            lists: one_of(&[
                "['a']",
                "['a', 'b', 'a']",
                "user.traits.team",
                "user.traits['none']",
                "user.traits['other']",
                "join.circleci.context_ids",
            ]),
        }
    }

    fn deeper(&self) -> Self {
        let Self {
            bools,
            ints,
            texts,
            lists,
        } = self;
        let comparison = || one_of(&["==", "!=", "<", "<=", ">", ">="]);
        let search = || one_of(&["startsWith", "endsWith", "contains"]);
        let quantifier = || one_of(&["all", "exists", "exists_one"]);
        let pattern = || one_of(&["^a", "b$", "[a-z]+/", "^(a|b)*$", "", "\\\\d+"]);
        Self {
            bools: prop_oneof![
                2 => bools.clone(),
                2 => (bools.clone(), one_of(&["&&", "||"]), bools.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                1 => bools.clone().prop_map(|a| format!("!({a})")),
                1 => (bools.clone(), bools.clone(), bools.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
                2 => (ints.clone(), comparison(), ints.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                2 => (texts.clone(), comparison(), texts.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                1 => (lists.clone(), lists.clone()).prop_map(|(a, b)| format!("({a} == {b})")),
                1 => (texts.clone(), lists.clone()).prop_map(|(a, b)| format!("({a} in {b})")),
                1 => (texts.clone(), search(), texts.clone()).prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
                1 => (texts.clone(), pattern()).prop_map(|(a, b)| format!("({a}).matches('{b}')")),
                1 => (lists.clone(), quantifier(), texts.clone()).prop_map(|(a, f, b)| format!("{a}.{f}(x, x == {b})")),
                1 => (lists.clone(), quantifier(), bools.clone()).prop_map(|(a, f, b)| format!("{a}.{f}(x, x.size() > 1 || {b})")),
            ]
            .boxed(),
            ints: prop_oneof![
                2 => ints.clone(),
                2 => (ints.clone(), one_of(&["+", "-", "*", "/", "%"]), ints.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                1 => ints.clone().prop_map(|a| format!("-({a})")),
                1 => texts.clone().prop_map(|a| format!("size({a})")),
                1 => lists.clone().prop_map(|a| format!("{a}.size()")),
                1 => (bools.clone(), ints.clone(), ints.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            ]
            .boxed(),
            texts: prop_oneof![
                2 => texts.clone(),
                2 => (texts.clone(), texts.clone()).prop_map(|(a, b)| format!("({a} + {b})")),
                1 => (bools.clone(), texts.clone(), texts.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
                1 => (texts.clone(), one_of(&["upperAscii", "lowerAscii", "trim"])).prop_map(|(a, f)| format!("({a}).{f}()")),
                1 => (texts.clone(), texts.clone(), texts.clone()).prop_map(|(a, b, c)| format!("({a}).replace({b}, {c})")),
                1 => (lists.clone(), texts.clone()).prop_map(|(a, b)| format!("{a}.join({b})")),
                1 => ints.clone().prop_map(|a| format!("string({a})")),
                1 => (lists.clone(), ints.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            ]
            .boxed(),
            lists: prop_oneof![
                2 => lists.clone(),
                1 => (texts.clone(), texts.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
                1 => (lists.clone(), bools.clone()).prop_map(|(a, b)| format!("{a}.filter(x, x == 'a' || {b})")),
                1 => (lists.clone(), texts.clone()).prop_map(|(a, b)| format!("{a}.map(x, x + {b})")),
                1 => (texts.clone(), texts.clone()).prop_map(|(a, b)| format!("({a}).split({b})")),
            ]
            .boxed(),
        }
    }

    fn any() -> BoxedStrategy<String> {
        let grammar = Self::leaves().deeper().deeper().deeper();
        prop_oneof![grammar.bools, grammar.ints, grammar.texts, grammar.lists].boxed()
    }
}

/// Numbers of JSON are ints to us.
fn to_cel(json: &Json) -> cel::Value {
    match json {
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => number.as_i64().unwrap().into(),
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(to_cel).collect::<Vec<_>>().into(),
        Json::Object(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), to_cel(value)));
            entries.collect::<HashMap<String, cel::Value>>().into()
        }
        Json::Null => cel::Value::Null,
    }
}

/// The value of `source` by the `cel` crate, or `None` for an error.
fn second_opinion(source: &str, attributes: &Attributes) -> Option<Json> {
    let mut env = cel::Env::stdlib();
    env.add_extension(cel::extensions::strings).unwrap();
    let env = Arc::new(env);
    let program = env.compile(source).unwrap();
    let mut context = cel::Context::with_env(env);
    let mut attributes = attributes.to_json();
    // Groups are messages to CEL: there, whether or not a field of theirs is set.
    attributes["join"]["gitlab"] = json!({});
    for (name, value) in attributes.as_object().unwrap() {
        context.add_variable_from_value(name.as_str(), to_cel(value));
    }
    program
        .execute(&context)
        .ok()
        .map(|value| value.json().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn expressions_have_the_value_that_the_cel_crate_gives(source in Grammar::any()) {
        let attributes = github();
        prop_assume!(source.len() <= MAX_SOURCE);
        let expression = Expression::compile_within(&source, Purpose::Lenient, MAX_SOURCE);
        let Ok(expression) = expression else {
            let error = expression.unwrap_err();
            prop_assert!(error.message.contains("nested"), "{source}: {error}");
            return Ok(());
        };
        let ours = expression.evaluate(&attributes);
        prop_assert_eq!(ours.clone().ok(), second_opinion(&source, &attributes), "{}: ours {:?}", source, ours);
    }
}
