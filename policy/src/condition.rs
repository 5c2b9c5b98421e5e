//! The simple form of a rule: attribute, operator, values.
//!
//! A condition is another way to write an expression, and compiles to one, so
//! the two forms cannot disagree. The attribute is taken as text, as in
//! Teleport: `42`, `true`. On an attribute that is not set, `eq`, `in`,
//! `matches` and `prefix` do not hold, and `not_eq` and `not_in` have no
//! answer: a rule that allows does not match then, a rule that denies does.

use std::fmt::{self, Write};

use crate::expression::{Expression, ExpressionError, ExpressionPurpose, Lexer, Token};
use crate::schema::{self, Presence, Type};

/// Most values of one condition.
pub const MAX_VALUES: usize = 256;

/// How the value of an attribute is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Is the value.
    Eq,
    /// Is another value.
    NotEq,
    /// Is one of the values.
    In,
    /// Is none of the values.
    NotIn,
    /// The whole of it matches the regular expression.
    Matches,
    /// Begins with the value.
    Prefix,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 6] = [
        Self::Eq,
        Self::NotEq,
        Self::In,
        Self::NotIn,
        Self::Matches,
        Self::Prefix,
    ];

    /// The name in resources: `not_eq`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::NotEq => "not_eq",
            Self::In => "in",
            Self::NotIn => "not_in",
            Self::Matches => "matches",
            Self::Prefix => "prefix",
        }
    }

    /// The operator of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operator| operator.name() == name)
    }

    fn takes_many(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The full name of an attribute, or of an entry of one that is a map: `user.labels.team`.
    pub attribute: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what: one value, or for `in` and `not_in` one or more.
    pub values: Vec<String>,
}

/// What is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConditionError {
    /// `attribute` or `values[2]`.
    pub(crate) part: String,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl ConditionError {
    fn new(part: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            message: message.into(),
            suggestion: None,
        }
    }
}

impl Condition {
    /// The expression that says the same.
    pub(crate) fn to_expression(&self) -> Result<String, ConditionError> {
        let attribute = self.check_attribute()?;
        self.check_values(attribute.r#type)?;
        let (path, guard) = (&attribute.path, &attribute.guard);
        let value = self.values.first().map(String::as_str).unwrap_or_default();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match self.operator {
            Operator::Eq => write!(text, "{guard}{path} == {}", quote(value)),
            Operator::NotEq => write!(text, "{path} != {}", quote(value)),
            Operator::In => write!(text, "{guard}{path} in [{}]", self.quoted_values()),
            Operator::NotIn => write!(text, "!({path} in [{}])", self.quoted_values()),
            Operator::Matches => write!(
                text,
                "{guard}{path}.matches({})",
                quote(&format!("\\A(?:{value})\\z"))
            ),
            Operator::Prefix => write!(text, "{guard}{path}.startsWith({})", quote(value)),
        };
        Ok(text)
    }

    fn quoted_values(&self) -> String {
        let values: Vec<_> = self.values.iter().map(|value| quote(value)).collect();
        values.join(", ")
    }

    fn check_attribute(&self) -> Result<Reference, ConditionError> {
        let name = self.attribute.as_str();
        if name.is_empty() {
            return Err(ConditionError::new("attribute", "is missing"));
        }
        let attribute = schema::attribute(name);
        if !attribute.is_some_and(|attribute| attribute.r#type.is_scalar()) {
            check_reference(name)?;
        }
        let guard = match attribute {
            Some(attribute) if attribute.presence == Presence::Always => String::new(),
            Some(_) => format!("has({name}) && "),
            // An entry of a map.
            None => match name.rsplit_once('.') {
                Some(_) if !name.ends_with(']') => format!("has({name}) && "),
                _ => match name.split_once('[') {
                    Some((map, key)) => format!("{} in {map} && ", key.trim_end_matches(']')),
                    None => String::new(),
                },
            },
        };
        let path = match attribute {
            Some(attribute) if attribute.r#type != Type::String => format!("string({name})"),
            _ => name.to_owned(),
        };
        Ok(Reference {
            path,
            guard,
            r#type: attribute.map(|attribute| attribute.r#type),
        })
    }

    fn check_values(&self, r#type: Option<Type>) -> Result<(), ConditionError> {
        let operator = self.operator;
        let count = self.values.len();
        if count == 0 {
            return Err(ConditionError::new(
                "values",
                format!("`{operator}` needs a value"),
            ));
        }
        if count > 1 && !operator.takes_many() {
            return Err(ConditionError::new(
                "values",
                format!("`{operator}` takes one value, not {count}"),
            ));
        }
        if count > MAX_VALUES {
            return Err(ConditionError::new(
                "values",
                format!("has {count} values; at most {MAX_VALUES} are allowed"),
            ));
        }
        if !matches!(operator, Operator::Matches | Operator::Prefix) {
            for (number, value) in self.values.iter().enumerate() {
                let never = match r#type {
                    Some(Type::Bool) => !matches!(value.as_str(), "true" | "false"),
                    Some(Type::Int) => {
                        value.parse::<i64>().map(|it| it.to_string()).as_ref() != Ok(value)
                    }
                    Some(_) => value.is_empty(),
                    None => false,
                };
                if never {
                    let message = match r#type {
                        Some(Type::Bool) => format!("the attribute is `true` or `false`, never {value:?}"),
                        Some(Type::Int) => format!("the attribute is a whole number, never {value:?}"),
                        _ => "an attribute is never empty; one that is not set is asked for with `has(…)` in an expression".to_owned(),
                    };
                    return Err(ConditionError::new(format!("values[{number}]"), message));
                }
            }
        }
        let value = &self.values[0];
        if operator == Operator::Prefix && value.is_empty() {
            return Err(ConditionError::new(
                "values[0]",
                "every text begins with the empty one",
            ));
        }
        if operator == Operator::Matches
            && let Err(error) = regex_lite::Regex::new(value)
        {
            // By itself, so that no bracket of it can close the one around.
            return Err(ConditionError::new(
                "values[0]",
                format!("{value:?} is not a regular expression: {error}"),
            ));
        }
        Ok(())
    }
}

struct Reference {
    /// `None` for an entry of a map, which is text that may be empty.
    r#type: Option<Type>,
    /// The attribute as text.
    path: String,
    /// What asks whether it is there.
    guard: String,
}

/// Checks what is not the name of an attribute with one value: an entry of a map, or a mistake.
fn check_reference(name: &str) -> Result<(), ConditionError> {
    // Nothing but a reference may stand here, whatever would compile.
    if !is_reference(name) {
        let message = format!(
            "{name:?} is not the name of an attribute; other expressions go into `expression`"
        );
        return Err(ConditionError::new("attribute", message));
    }
    let compiled = Expression::compile_within(
        name,
        ExpressionPurpose::Lenient,
        crate::expression::MAX_SOURCE,
    )
    .map_err(
        |ExpressionError {
             message,
             suggestion,
             ..
         }| ConditionError {
            part: "attribute".to_owned(),
            message,
            suggestion,
        },
    )?;
    if !compiled.is_scalar() {
        let message = format!(
            "`{name}` is {}, which has no single value; write an expression such as `\"x\" in {name}`",
            compiled.type_with_article()
        );
        return Err(ConditionError::new("attribute", message));
    }
    Ok(())
}

/// Whether `text` is `a.b.c` or `a.b["c"]`, and nothing stands between or behind: what
/// comes after it in the expression must not become part of a comment.
fn is_reference(text: &str) -> bool {
    let mut lexer = Lexer::new(text, 0);
    let mut previous = Token::Mark(".");
    let mut indexed = false;
    let mut end = 0;
    loop {
        let Ok((token, span)) = lexer.next() else {
            return false;
        };
        if span.start != end {
            return false;
        }
        end = span.end;
        let fits = match (&previous, &token) {
            (Token::Mark("."), Token::Name(_)) => true,
            (Token::Name(_), Token::Mark(".")) => true,
            (Token::Name(_), Token::Mark("[")) => true,
            (Token::Mark("["), Token::Text(_)) => true,
            (Token::Text(_), Token::Mark("]")) => !std::mem::replace(&mut indexed, true),
            (Token::Name(_) | Token::Mark("]"), Token::End) => return true,
            _ => false,
        };
        if !fits {
            return false;
        }
        previous = token;
    }
}

/// A text as a literal of an expression.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
