//! Instructions of what issuing an identity asks of policy.

// What gungraun's macros make is not written by us.
#![allow(missing_docs, unused_qualifications, clippy::expect_used)]

use std::hint::black_box;

use gungraun::prelude::*;
use policy::{
    Attributes, EvaluationError, Expression, PathTemplate, RenderError, Rule, RuleDecision,
    RuleSource, Rules,
};
use serde_json::json;

const RULE: &str =
    r#"join.github.repository == "org/app" && join.github.ref.startsWith("refs/heads/")"#;
const PATH: &str =
    r#"/ci/{{ join.github.repository_owner }}/{{ join.github.repository.split("/")[1] }}"#;

fn caller() -> Attributes {
    let json = json!({
        "join": {"meta": {"join_method": "github"}, "github": {
            "repository": "org/app", "repository_owner": "org", "ref": "refs/heads/main", "actor": "alice",
        }},
        "user": {"name": "bot-ci", "is_bot": true, "traits": {"team": ["a", "b", "c"]}},
    });
    Attributes::from_json(&json).expect("it obeys the schema")
}

fn rules() -> (Rules, Attributes) {
    let rule = |text: &str| {
        Rule::new("", &RuleSource::Expression(text.to_owned()), false).expect("it compiles")
    };
    let deny = vec![rule("has(join.github) && join.github.actor == 'mallory'")];
    (
        Rules::new(deny, vec![rule(RULE)]).expect("the deny rule asks"),
        caller(),
    )
}

fn path() -> (PathTemplate, Attributes) {
    (PathTemplate::compile(PATH).expect("it compiles"), caller())
}

fn expression(source: &str) -> (Expression, Attributes) {
    (Expression::compile(source).expect("it compiles"), caller())
}

/// The tables that are made once per process.
fn warm(source: &str) -> &str {
    Expression::compile("user.is_bot").expect("it compiles");
    source
}

#[library_benchmark]
#[bench::rule(args = (RULE), setup = warm)]
fn compile(source: &str) -> Expression {
    Expression::compile(black_box(source)).expect("it compiles")
}

#[library_benchmark]
#[bench::deny_and_allow(setup = rules)]
fn decide((rules, caller): (Rules, Attributes)) -> RuleDecision {
    black_box(&rules).decide(black_box(&caller))
}

#[library_benchmark]
#[bench::equality(args = ("join.github.actor == 'alice'"), setup = expression)]
#[bench::membership(args = ("'c' in user.traits.team"), setup = expression)]
#[bench::pattern(args = ("join.github.ref.matches('^refs/heads/[a-z]+$')"), setup = expression)]
#[bench::macros(args = ("user.traits.team.exists(t, t.startsWith('c'))"), setup = expression)]
fn evaluate((expression, caller): (Expression, Attributes)) -> Result<bool, EvaluationError> {
    black_box(&expression).holds(black_box(&caller))
}

#[library_benchmark]
#[bench::two_values(setup = path)]
fn render((path, caller): (PathTemplate, Attributes)) -> Result<String, RenderError> {
    black_box(&path).render(black_box(&caller))
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [compile, decide, evaluate, render]
);
main!(library_benchmark_groups = instructions);
