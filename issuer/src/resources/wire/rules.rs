//! Rules on the wire.

use ::config::Path;
use policy::{Condition, Operator, Rule, RuleError, RuleSource, Rules};
use proto::admin::v1 as pb;

use super::{check::Check, told};
use crate::resources::specs::RuleTexts;

/// Most rules of a list.
const MAX_RULES: usize = 64;
/// Most conditions of a rule.
const MAX_CONDITIONS: usize = 64;

/// Compiles the rules of `spec.rules`; every mistake of each is told.
pub(super) fn read(check: &mut Check, at: &Path, texts: &RuleTexts) -> Rules {
    let at_deny = at.key("deny");
    let allow = list(check, &at.key("allow"), &texts.allow);
    let deny = list(check, &at_deny, &texts.deny);
    // Those of the list that stand: what does not has been told.
    let (places, deny): (Vec<_>, Vec<_>) = deny.into_iter().unzip();
    let allow = allow.into_iter().map(|(_, rule)| rule).collect();
    match Rules::new(deny.clone(), allow) {
        Ok(rules) => rules,
        Err(_) => {
            for (place, rule) in places.into_iter().zip(deny) {
                if let Err(error) = Rules::new(vec![rule], vec![]) {
                    let part = error.part.trim_start_matches("deny[0].").to_owned();
                    refuse(
                        check,
                        &at_deny.index(place),
                        &texts.deny[place],
                        &RuleError { part, ..error },
                    );
                }
            }
            Rules::default()
        }
    }
}

fn list(check: &mut Check, at: &Path, texts: &[pb::Rule]) -> Vec<(usize, Rule)> {
    check.at_most(at, MAX_RULES, texts.len());
    let rules = texts.iter().take(MAX_RULES).enumerate();
    rules
        .filter_map(|(place, text)| Some((place, rule(check, &at.index(place), text)?)))
        .collect()
}

fn rule(check: &mut Check, at: &Path, text: &pb::Rule) -> Option<Rule> {
    check.text(&at.key("description"), &text.description);
    let source = match (text.expression.is_empty(), text.conditions.is_empty()) {
        (false, false) => {
            let message = "a rule has an expression or conditions, not both";
            check.refuse(at, message);
            return None;
        }
        (true, true) => {
            check.refuse(at, "a rule has an expression or conditions");
            return None;
        }
        (false, true) => RuleSource::Expression(text.expression.clone()),
        (true, false) => {
            let at = at.key("conditions");
            check.at_most(&at, MAX_CONDITIONS, text.conditions.len());
            let conditions = text.conditions.iter().take(MAX_CONDITIONS).enumerate();
            let read: Vec<_> = conditions
                .map(|(place, condition)| self::condition(check, &at.index(place), condition))
                .collect();
            RuleSource::Conditions(read.into_iter().collect::<Option<_>>()?)
        }
    };
    let verified = text.require_verified;
    let error = match Rule::new(&text.description, &source, verified) {
        Ok(rule) => return Some(rule),
        Err(error) => error,
    };
    let RuleSource::Conditions(conditions) = source else {
        refuse(check, at, text, &error);
        return None;
    };
    // Each alone, so that all that are wrong are told.
    let mut found = false;
    for (place, condition) in conditions.into_iter().enumerate() {
        let source = RuleSource::Conditions(vec![condition]);
        if let Err(mut error) = Rule::new("", &source, verified) {
            found = true;
            error.part = match error.part.strip_prefix("conditions[0]") {
                Some(rest) => format!("conditions[{place}]{rest}"),
                None => format!("conditions[{place}]"),
            };
            refuse(check, at, text, &error);
        }
    }
    if !found {
        refuse(check, at, text, &error);
    }
    None
}

fn condition(check: &mut Check, at: &Path, condition: &pb::Condition) -> Option<Condition> {
    use pb::condition::Operator as Wire;
    let (operator, values) = match &condition.operator {
        None => {
            let message = "an operator is missing: one of eq, not_eq, in, not_in, matches, prefix";
            check.refuse(at, message);
            return None;
        }
        Some(Wire::Eq(value)) => (Operator::Eq, vec![value.clone()]),
        Some(Wire::NotEq(value)) => (Operator::NotEq, vec![value.clone()]),
        Some(Wire::In(values)) => (Operator::In, values.values.clone()),
        Some(Wire::NotIn(values)) => (Operator::NotIn, values.values.clone()),
        Some(Wire::Matches(value)) => (Operator::Matches, vec![value.clone()]),
        Some(Wire::Prefix(value)) => (Operator::Prefix, vec![value.clone()]),
    };
    Some(Condition {
        attribute: condition.attribute.clone(),
        operator,
        values,
    })
}

fn refuse(check: &mut Check, at: &Path, text: &pb::Rule, error: &RuleError) {
    let path = place(at, text, &error.part);
    let message = told(&error.message, error.suggestion.as_deref());
    check.refuse_inside(&path, error.position, message);
}

/// Where in YAML the part of a rule stands that `policy` names, as
/// `conditions[2].values[0]`.
fn place(at: &Path, text: &pb::Rule, part: &str) -> Path {
    let Some((number, rest)) = part
        .strip_prefix("conditions[")
        .and_then(|rest| rest.split_once(']'))
    else {
        return match part {
            "expression" => at.key("expression"),
            _ => at.key("conditions"),
        };
    };
    let Ok(number) = number.parse::<usize>() else {
        return at.key("conditions");
    };
    let at = at.key("conditions").index(number);
    if rest == ".attribute" {
        return at.key("attribute");
    }
    let Some(values) = rest.strip_prefix(".values") else {
        return at;
    };
    use pb::condition::Operator as Wire;
    let condition = text.conditions.get(number);
    let at = match condition.and_then(|condition| condition.operator.as_ref()) {
        Some(Wire::Eq(_)) => return at.key("eq").key("value"),
        Some(Wire::NotEq(_)) => return at.key("not_eq").key("value"),
        Some(Wire::Matches(_)) => return at.key("matches").key("value"),
        Some(Wire::Prefix(_)) => return at.key("prefix").key("value"),
        Some(Wire::In(_)) => at.key("in").key("values"),
        Some(Wire::NotIn(_)) => at.key("not_in").key("values"),
        None => return at,
    };
    let index = values
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match index.and_then(|index| index.parse().ok()) {
        Some(index) => at.index(index),
        None => at,
    }
}
