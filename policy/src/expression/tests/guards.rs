//! What would harm if it were let in: run in debug builds, on a small stack.

use super::*;

/// Half of what a thread has by default. Debug builds use the most.
const SMALL_STACK: usize = 1024 * 1024;

fn on_a_small_stack(check: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new()
        .stack_size(SMALL_STACK)
        .spawn(check)
        .unwrap();
    thread.join().unwrap();
}

/// Sources that overflow the stack of the `cel` crate, at both lengths.
#[test]
fn deep_and_long_expressions_are_refused_without_harm() {
    let chain = |part: &str, joint: &str, times: usize| vec![part; times].join(joint);
    on_a_small_stack(move || {
        for times in [40, 100, 300, 5_000, 100_000] {
            for source in [
                chain("1", "+", times) + " == 1",
                chain("a", ".", times),
                format!("user.labels{}", ".a".repeat(times)),
                format!("user.name{}", ".trim()".repeat(times)),
                format!("user.traits{}", "[0]".repeat(times)),
                format!("{}true{}", "(".repeat(times), ")".repeat(times)),
                format!("{}{}", "[".repeat(times), "]".repeat(times)),
                format!("{}true", "!".repeat(times)),
                format!("{}1", "- ".repeat(times)),
                format!("{}1", "true ? 1 : ".repeat(times)),
                format!("{}1", "{'a':".repeat(times)),
                format!("{}true", "has(".repeat(times)),
                format!("{}'a'{}", "size(".repeat(times), ")".repeat(times)),
                chain("1 == 1", "==", times),
                "'".repeat(2 * times + 1),
                "\\".repeat(times),
            ] {
                Expression::compile(&source).expect_err(&source[..source.len().min(60)]);
            }
        }
    });
}

#[test]
fn the_longest_and_deepest_that_is_allowed_works_on_a_small_stack() {
    on_a_small_stack(|| {
        let attributes = github();
        for source in [
            format!(
                "{}true{}",
                "(".repeat(MAX_NESTING - 1),
                ")".repeat(MAX_NESTING - 1)
            ),
            format!("{}true", "!".repeat(MAX_NESTING - 2)),
            format!("1{} > 0", "+1".repeat(MAX_NESTING - 3)),
            vec!["user.is_bot"; 60].join(" && "),
            format!(
                "{}true{}",
                "[true].all(x,".repeat(MAX_NESTING - 2),
                ")".repeat(MAX_NESTING - 2)
            ),
        ] {
            let expression =
                Expression::compile(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(expression.holds(&attributes), Ok(true), "{source}");
            expression.explain(&attributes);
        }
    });
}

#[test]
fn a_source_longer_than_allowed_is_refused() {
    let source = |length: usize| format!("{:<length$}", "user.is_bot");
    assert!(Expression::compile(&source(MAX_SOURCE)).is_ok());
    let error = Expression::compile(&source(MAX_SOURCE + 1)).unwrap_err();
    assert!(
        error
            .message
            .contains("has 1025 bytes; at most 1024 are allowed"),
        "{error}"
    );
}

/// A caller with the largest lists and texts that can be.
fn huge() -> Attributes {
    let mut attributes = Attributes::new();
    let many = |count: usize| {
        (0..count)
            .map(|number| format!("value-{number}"))
            .collect::<Vec<_>>()
    };
    let list = crate::Value::List(many(crate::attributes::MAX_ENTRIES));
    attributes.set("join.circleci.context_ids", list).unwrap();
    let traits = [("team".to_owned(), many(crate::attributes::MAX_ENTRIES - 1))];
    attributes
        .set("user.traits", crate::Value::MultiMap(traits.into()))
        .unwrap();
    let text = crate::Value::String("a".repeat(crate::attributes::MAX_TEXT));
    attributes.set("user.name", text).unwrap();
    attributes
}

#[test]
fn the_budget_ends_what_would_take_long() {
    let attributes = huge();
    for (source, expected) in [
        // One pass over the longest list is within the budget, a pass for each entry is not.
        (
            "join.circleci.context_ids.exists(c, c == 'value-1023')",
            Ok(true),
        ),
        ("'value-1022' in user.traits.team", Ok(true)),
        (
            "join.circleci.context_ids.all(a, user.traits.team.exists(b, a == b))",
            Err(EvaluationError::TooManySteps),
        ),
        (
            "join.circleci.context_ids.map(a, user.name).map(a, a.replace('a', 'b')).size() > 0",
            Err(EvaluationError::TooManySteps),
        ),
        // The end of the budget is not absorbed as other errors are.
        (
            "join.circleci.context_ids.all(a, user.traits.team.all(b, a + b != '')) || true",
            Err(EvaluationError::TooManySteps),
        ),
    ] {
        assert_eq!(
            Expression::compile(source).unwrap().holds(&attributes),
            expected,
            "{source}"
        );
    }
    let long = "user.name + user.name == ''";
    let result = Expression::compile(long).unwrap().holds(&attributes);
    assert_eq!(
        result,
        Err(EvaluationError::TooLong {
            expression: "user.name + user.name".to_owned()
        })
    );
    let long = "user.name.replace('', 'aaaaaaaaaaaa') == ''";
    assert!(matches!(
        Expression::compile(long).unwrap().holds(&attributes),
        Err(EvaluationError::TooLong { .. })
    ));
    let nested = "[1,1,1,1,1,1,1,1,1,1].all(a, ".repeat(10) + "true" + &")".repeat(10);
    assert_eq!(
        Expression::compile(&nested).unwrap().holds(&attributes),
        Err(EvaluationError::TooManySteps)
    );
}

/// Patterns that take a backtracking engine for ever: linear here, and charged.
#[test]
fn catastrophic_patterns_are_linear_and_charged() {
    let attributes = huge();
    for pattern in [
        "(a+)+$b",
        "(a|aa)+b",
        "(.*)*b",
        "(a*)*(a*)*(a*)*b",
        "(?:a?){30}a{30}b",
    ] {
        let source = format!("user.name.matches('{pattern}')");
        let result = Expression::compile(&source).unwrap().holds(&attributes);
        assert!(
            matches!(result, Ok(false) | Err(EvaluationError::TooManySteps)),
            "{pattern}: {result:?}"
        );
    }
    for pattern in [
        "(a{100}){100}",
        "a{100000}",
        &"(".repeat(100),
        &format!("{}a{}", "(".repeat(60), ")".repeat(60)),
    ] {
        Expression::compile(&format!("user.name.matches('{pattern}')")).expect_err(pattern);
    }
}

/// A trace of a long evaluation stays of a size that can be shown.
#[test]
fn a_trace_is_bounded() {
    let source = "join.circleci.context_ids.all(a, user.traits.team.exists(b, a == b))";
    let trace = Expression::compile(source).unwrap().explain(&huge());
    assert_eq!(
        trace.error.as_deref(),
        Some("the evaluation takes more than 10000 steps")
    );
    assert!(serde_json::to_string(&trace).unwrap().len() < 300_000);
}
