//! Who may have an identity: rules over the attributes of the caller.
//!
//! A rule that denies is stronger than any that allows. If there is no rule
//! that allows, everybody may whom the role lets in; if there are any, one of
//! them must hold. A rule that cannot be evaluated for a caller is taken the
//! safe way: it does not allow, and it does deny.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::attributes::Attributes;
use crate::condition::{Condition, ConditionError};
use crate::expression::{EvaluationError, Expression, ExpressionError, ExpressionPurpose, Trace};
use crate::reads::WorkloadReads;

/// Longest expression that the conditions of one rule make, in bytes.
const MAX_CONDITIONS: usize = 32 * 1024;

/// How a rule is written: one of the two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// An expression that is true or false.
    Expression(String),
    /// Conditions that must all hold.
    Conditions(Vec<Condition>),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    description: Arc<str>,
    expression: Expression,
    require_verified: bool,
}

impl Rule {
    /// Compiles a rule. With `require_verified`, a rule that relies on the
    /// agent's word is an error.
    pub fn new(
        description: &str,
        source: &RuleSource,
        require_verified: bool,
    ) -> Result<Self, RuleError> {
        let expression = match source {
            RuleSource::Expression(text) => {
                if text.trim().is_empty() {
                    return Err(RuleError::of("expression", "is empty"));
                }
                Expression::compile(text).map_err(RuleError::expression)?
            }
            RuleSource::Conditions(conditions) => compile_conditions(conditions)?,
        };
        if !expression.is_bool() {
            let message = format!(
                "a rule is true or false; this is {}",
                expression.type_with_article()
            );
            return Err(RuleError::of("expression", message));
        }
        if require_verified && let Some(error) = expression.asserted_error() {
            return Err(match source {
                RuleSource::Expression(_) => RuleError::expression(error),
                RuleSource::Conditions(_) => RuleError::of("conditions", error.message),
            });
        }
        Ok(Self {
            description: description.into(),
            expression,
            require_verified,
        })
    }

    /// What its author says of it; may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The expression that decides; that of conditions is the one they compile to.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Whether it may rely on verified attributes only.
    pub fn require_verified(&self) -> bool {
        self.require_verified
    }
}

fn compile_conditions(conditions: &[Condition]) -> Result<Expression, RuleError> {
    if conditions.is_empty() {
        return Err(RuleError::of(
            "conditions",
            "is empty; a rule needs an expression or conditions",
        ));
    }
    let compile =
        |text: &str| Expression::compile_within(text, ExpressionPurpose::Lenient, MAX_CONDITIONS);
    let mut parts = Vec::with_capacity(conditions.len());
    for (number, condition) in conditions.iter().enumerate() {
        let part = condition.to_expression();
        parts.push(part.map_err(|error| RuleError::condition(number, error))?);
    }
    compile(&parts.join(" && ")).map_err(|whole| {
        // Each alone, so that the error names the condition that it is in.
        let alone = |part: &String| compile(part).err();
        let found = parts
            .iter()
            .enumerate()
            .find_map(|(number, part)| Some((number, alone(part)?)));
        match found {
            Some((
                number,
                ExpressionError {
                    message,
                    suggestion,
                    ..
                },
            )) => {
                let part = "values".to_owned();
                RuleError::condition(
                    number,
                    ConditionError {
                        part,
                        message,
                        suggestion,
                    },
                )
            }
            None => RuleError::of("conditions", whole.message),
        }
    })
}

/// A rule that cannot be used, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RuleError {
    /// The place in the rule: `expression`, `conditions[2].attribute`; from
    /// [`Rules::new`] with the rule: `deny[0].expression`.
    pub part: String,
    /// Line and character in the expression, from 1.
    pub position: Option<(usize, usize)>,
    /// What is wrong there.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl RuleError {
    fn of(part: &str, message: impl Into<String>) -> Self {
        Self {
            part: part.to_owned(),
            position: None,
            message: message.into(),
            suggestion: None,
        }
    }

    fn expression(error: ExpressionError) -> Self {
        Self {
            part: "expression".to_owned(),
            position: Some((error.line, error.column)),
            message: error.message,
            suggestion: error.suggestion,
        }
    }

    fn condition(number: usize, error: ConditionError) -> Self {
        Self {
            part: format!("conditions[{number}].{}", error.part),
            position: None,
            message: error.message,
            suggestion: error.suggestion,
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.part)?;
        if let Some((line, column)) = self.position {
            write!(f, ", line {line}, column {column}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// Which of the two lists a rule is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum List {
    /// The rules that deny.
    Deny,
    /// The rules that allow.
    Allow,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        })
    }
}

/// The rules of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    deny: Box<[Rule]>,
    allow: Box<[Rule]>,
}

impl Rules {
    /// Puts rules together. A rule that denies must ask `has(…)` for what not
    /// every caller has, or it would deny all the others.
    pub fn new(deny: Vec<Rule>, allow: Vec<Rule>) -> Result<Self, RuleError> {
        for (number, rule) in deny.iter().enumerate() {
            // Conditions ask by themselves, except where denying is what is meant.
            if rule.expression.is_strict()
                && let Some(error) = rule.expression.unguarded_error()
            {
                let mut error = RuleError::expression(error);
                error.part = format!("deny[{number}].{}", error.part);
                return Err(error);
            }
        }
        Ok(Self {
            deny: deny.into(),
            allow: allow.into(),
        })
    }

    /// The rules that deny.
    pub fn deny(&self) -> &[Rule] {
        &self.deny
    }

    /// The rules that allow; none: everybody whom the role lets in.
    pub fn allow(&self) -> &[Rule] {
        &self.allow
    }

    /// What of a workload the decision can depend on.
    pub fn workload_reads(&self) -> WorkloadReads {
        let rules = self.deny.iter().chain(&self.allow);
        rules.map(|rule| rule.expression.workload_reads()).collect()
    }

    /// Names of the resources `sigstore_policy` that the rules ask for, each once, in order.
    pub fn signature_policies(&self) -> BTreeSet<&str> {
        let rules = self.deny.iter().chain(&self.allow);
        rules
            .flat_map(|rule| rule.expression.signature_policies())
            .collect()
    }

    /// Decides on a caller, and names the rule that decided.
    pub fn decide(&self, attributes: &Attributes) -> RuleDecision {
        for (index, rule) in self.deny.iter().enumerate() {
            let reason = match rule.expression.holds(attributes) {
                Ok(false) => continue,
                Ok(true) => "a deny rule matches".to_owned(),
                Err(error) => cannot_evaluate(&error),
            };
            return RuleDecision::new(false, Some(RuleRef::new(List::Deny, index, rule)), reason);
        }
        if self.allow.is_empty() {
            return RuleDecision::new(true, None, "there are no allow rules".to_owned());
        }
        for (index, rule) in self.allow.iter().enumerate() {
            if rule.expression.holds(attributes) == Ok(true) {
                let reason = "an allow rule matches".to_owned();
                return RuleDecision::new(
                    true,
                    Some(RuleRef::new(List::Allow, index, rule)),
                    reason,
                );
            }
        }
        RuleDecision::new(false, None, "no allow rule matches".to_owned())
    }

    /// Decides on a caller, and shows what every rule and each of its parts evaluates to.
    pub fn explain(&self, attributes: &Attributes) -> RulesTrace {
        let lists = [(List::Deny, &self.deny), (List::Allow, &self.allow)];
        let rules = lists.into_iter().flat_map(|(list, rules)| {
            rules.iter().enumerate().map(move |(index, rule)| {
                let result = rule.expression.holds(attributes);
                RuleTrace {
                    rule: RuleRef::new(list, index, rule),
                    expression: rule.expression.source().to_owned(),
                    matched: result.clone().unwrap_or(list == List::Deny),
                    error: result.err().map(|error| error.to_string()),
                    trace: rule.expression.explain(attributes),
                }
            })
        });
        RulesTrace {
            rules: rules.collect(),
            decision: self.decide(attributes),
        }
    }
}

fn cannot_evaluate(error: &EvaluationError) -> String {
    format!("a deny rule cannot be evaluated, which denies: {error}")
}

/// A rule, so that a person finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// The list that it is in.
    pub list: List,
    /// Its place in the list, from 0.
    pub index: usize,
    /// What its author says of it; may be empty.
    pub description: String,
}

impl RuleRef {
    fn new(list: List, index: usize, rule: &Rule) -> Self {
        Self {
            list,
            index,
            description: rule.description.to_string(),
        }
    }
}

/// `allow[0]`, or with a description `allow[0] (the release workflow)`.
impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)?;
        if self.description.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.description)
        }
    }
}

/// What the rules say of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleDecision {
    /// Whether the caller may.
    pub allowed: bool,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
    /// Why, in a few words.
    pub reason: String,
}

impl RuleDecision {
    fn new(allowed: bool, rule: Option<RuleRef>, reason: String) -> Self {
        Self {
            allowed,
            rule,
            reason,
        }
    }
}

/// A decision with everything that was seen on the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RulesTrace {
    /// What was decided, and by which rule.
    pub decision: RuleDecision,
    /// Every rule, those that deny first.
    pub rules: Vec<RuleTrace>,
}

/// What one rule evaluates to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleTrace {
    /// Which rule.
    #[serde(flatten)]
    pub rule: RuleRef,
    /// Its expression.
    pub expression: String,
    /// Whether it counts as holding: an error counts in a rule that denies.
    pub matched: bool,
    /// Why it could not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The value of each part.
    pub trace: Trace,
}

#[cfg(test)]
mod tests;
