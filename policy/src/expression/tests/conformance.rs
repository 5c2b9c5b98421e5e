//! CEL's own conformance cases, as far as they are in our subset.
//!
//! `tests/data/cel-conformance.json` is taken from the npm package
//! `@bufbuild/cel-spec` 0.6.1 (Apache-2.0, cel-spec v0.25.1): the cases without
//! variables whose values are ints, strings, bools, lists or maps, and cel-go's
//! parser tests with the tree that cel-go makes.

use serde_json::{Value as Json, json};

use super::super::parser;
use super::super::syntax::{Operator, Syntax, SyntaxKind};
use super::*;

const CASES: &str = include_str!("../../../tests/data/cel-conformance.json");

fn cases() -> Vec<Json> {
    serde_json::from_str(CASES).unwrap()
}

fn text<'a>(case: &'a Json, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_default()
}

/// `{"list": [{"int": "1"}]}` as `[1]`.
fn value(expected: &Json) -> Json {
    let (kind, value_) = expected.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "int" => json!(value_.as_str().unwrap().parse::<i64>().unwrap()),
        "list" => value_.as_array().unwrap().iter().map(value).collect(),
        "map" => {
            let entries = value_.as_array().unwrap().iter();
            let entries = entries.map(|entry| (value(&entry[0]).to_string(), value(&entry[1])));
            Json::Object(
                entries
                    .map(|(key, value)| (key.trim_matches('"').to_owned(), value))
                    .collect(),
            )
        }
        _ => value_.clone(),
    }
}

#[test]
fn values_are_those_of_the_conformance_cases() {
    let (mut agreed, mut refused, mut failed) = (0, 0, 0);
    for case in cases().iter().filter(|case| case["ast"].is_null()) {
        let source = text(case, "expr");
        let name = format!("{} {} {source}", text(case, "suite"), text(case, "name"));
        let compiled = Expression::compile(source);
        match (&case["value"], compiled) {
            (Json::Null, Err(_)) => failed += 1,
            (Json::Null, Ok(expression)) => {
                let result = expression.evaluate(&Attributes::new());
                assert!(result.is_err(), "{name}: {result:?}, must be an error");
                failed += 1;
            }
            (_, Err(_)) => refused += 1,
            (expected, Ok(expression)) => {
                let result = expression.evaluate(&Attributes::new());
                assert_eq!(result, Ok(value(expected)), "{name}");
                agreed += 1;
            }
        }
    }
    // Most of the refused are about doubles, uints, bytes, messages, `format` and `quote`.
    assert_eq!((agreed, failed, refused), (378, 226, 547));
}

#[test]
fn trees_are_those_of_cel_go() {
    let (mut agreed, mut refused) = (0, 0);
    for case in cases().iter().filter(|case| !case["ast"].is_null()) {
        let source = text(case, "expr");
        let expected: String = text(case, "ast").split_whitespace().collect();
        if expected.contains("__comprehension__") {
            continue;
        }
        match parser::parse(source) {
            Ok(syntax) => {
                let tree: String = tree(&syntax).split_whitespace().collect();
                assert_eq!(tree, expected, "{source}");
                agreed += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert_eq!((agreed, refused), (73, 18));
}

/// The tree as cel-go's tests write it.
fn tree(syntax: &Syntax) -> String {
    let list = |nodes: &[Syntax]| nodes.iter().map(tree).collect::<Vec<_>>().join(",");
    match &syntax.kind {
        SyntaxKind::Bool(flag) => flag.to_string(),
        SyntaxKind::Int(number) => number.to_string(),
        SyntaxKind::Text(text) => quote(text),
        SyntaxKind::List(nodes) => format!("[{}]", list(nodes)),
        SyntaxKind::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| format!("{}:{}", tree(key), tree(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        SyntaxKind::Name(name) => name.clone(),
        SyntaxKind::Select { of, name } => format!("{}.{name}", tree(of)),
        SyntaxKind::Index { of, key } => format!("_[_]({},{})", tree(of), tree(key)),
        SyntaxKind::Call {
            target: None,
            name,
            arguments,
            ..
        } if name == "has" => {
            format!("{}~test-only~", list(arguments))
        }
        SyntaxKind::Call {
            target,
            name,
            arguments,
            ..
        } => {
            let target = target
                .as_ref()
                .map(|target| format!("{}.", tree(target)))
                .unwrap_or_default();
            format!("{target}{name}({})", list(arguments))
        }
        SyntaxKind::Not(of) => format!("!_({})", tree(of)),
        SyntaxKind::Negate(of) => format!("-_({})", tree(of)),
        SyntaxKind::And(parts) => balanced("_&&_", parts),
        SyntaxKind::Or(parts) => balanced("_||_", parts),
        SyntaxKind::Binary { operator, sides } => {
            let name = match operator {
                Operator::In => "@in".to_owned(),
                operator => format!("_{}_", operator.symbol()),
            };
            format!("{name}({},{})", tree(&sides.0), tree(&sides.1))
        }
        SyntaxKind::Conditional(parts) => {
            format!(
                "_?_:_({},{},{})",
                tree(&parts.0),
                tree(&parts.1),
                tree(&parts.2)
            )
        }
    }
}

/// As Go quotes a text.
fn quote(text: &str) -> String {
    let letters = text.chars().map(|c| match c {
        '\x07' => "\\a".to_owned(),
        '\x08' => "\\b".to_owned(),
        '\x0b' => "\\v".to_owned(),
        '\x0c' => "\\f".to_owned(),
        '\'' => "'".to_owned(),
        c => c.escape_debug().to_string(),
    });
    format!("\"{}\"", letters.collect::<String>())
}

/// cel-go makes a balanced tree of a chain.
fn balanced(name: &str, parts: &[Syntax]) -> String {
    if let [part] = parts {
        return tree(part);
    }
    let middle = parts.len() / 2 + parts.len() % 2;
    let (left, right) = parts.split_at(middle);
    format!("{name}({},{})", balanced(name, left), balanced(name, right))
}
