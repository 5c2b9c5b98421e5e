//! Text with `{{ expressions }}` in it.
//!
//! A template that renders has every value that it names: an attribute that is
//! not set fails the whole, and so does an expression that comes to the empty
//! text. Nothing is ever rendered in place of a missing value.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::attributes::Attributes;
use crate::expression::{
    EvaluationError, Expression, ExpressionError, ExpressionPurpose, Lexer, MAX_SOURCE, Token,
    Trace,
};
use crate::reads::WorkloadReads;

mod path;

pub use path::PathTemplate;

/// Longest template, in bytes.
pub const MAX_TEMPLATE: usize = 4096;
/// Longest text that a template may become, in bytes.
pub const MAX_RENDERED: usize = 8192;

/// A compiled template. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    source: Arc<str>,
    /// Empty for a text without expressions, which is its own value.
    pieces: Arc<[Piece]>,
}

/// What a template is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(Box<str>),
    Expression(Expression),
}

impl Template {
    /// Compiles a text. `{{` begins an expression and `}}` ends it; positions
    /// in errors are those in the whole text.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_TEMPLATE {
            let message = format!(
                "the template has {} bytes; at most {MAX_TEMPLATE} are allowed",
                text.len()
            );
            return Err(ExpressionError::at(0, message).locate(text, 0));
        }
        let mut pieces = Vec::new();
        let mut rest = 0;
        while let Some(open) = text[rest..].find("{{").map(|at| rest + at) {
            push_text(&mut pieces, text, rest, open)?;
            let start = open + 2;
            let end = expression_end(text, start).map_err(|error| error.locate(text, 0))?;
            pieces.push(Piece::Expression(compile_part(text, start, end)?));
            rest = end + 2;
        }
        push_text(&mut pieces, text, rest, text.len())?;
        if matches!(pieces[..], [Piece::Text(_)]) {
            pieces.clear();
        }
        Ok(Self {
            source: text.into(),
            pieces: pieces.into(),
        })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is the same text for every caller.
    pub fn is_literal(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Expression(expression) => Some(expression),
            Piece::Text(_) => None,
        })
    }

    /// What of a workload the text can depend on.
    pub fn workload_reads(&self) -> WorkloadReads {
        self.expressions().map(Expression::workload_reads).collect()
    }

    /// The text for a caller.
    pub fn render(&self, attributes: &Attributes) -> Result<String, RenderError> {
        self.render_with(attributes, |_, _, _| Ok(()))
    }

    /// The text for a caller, as a DNS name: a value is one label or a part of one. Only
    /// what ends the name behind a dot, or is all of it, may be several labels.
    pub fn render_dns_name(&self, attributes: &Attributes) -> Result<String, RenderError> {
        self.render_with(attributes, |number, expression, value| {
            let begins_a_label = match number.checked_sub(1).map(|before| &self.pieces[before]) {
                None => true,
                Some(Piece::Text(text)) => text.ends_with('.'),
                Some(Piece::Expression(_)) => false,
            };
            let ends_the_name = number + 1 == self.pieces.len();
            if value.contains('.') && !(begins_a_label && ends_the_name) {
                return Err(RenderError::Segment {
                    expression: expression.source().to_owned(),
                    value: value.chars().take(64).collect(),
                    reason: "it has a dot, and its place is within one label",
                });
            }
            Ok(())
        })
    }

    fn render_with(
        &self,
        attributes: &Attributes,
        check: impl Fn(usize, &Expression, &str) -> Result<(), RenderError>,
    ) -> Result<String, RenderError> {
        if self.is_literal() {
            return Ok(self.source.to_string());
        }
        let mut text = String::with_capacity(self.source.len());
        for (number, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Expression(expression) => {
                    let value = value(expression, attributes)?;
                    check(number, expression, &value)?;
                    text.push_str(&value);
                }
            }
            if text.len() > MAX_RENDERED {
                return Err(RenderError::TooLong);
            }
        }
        Ok(text)
    }

    /// The text for a caller or why there is none, with the value of every part.
    pub fn explain(&self, attributes: &Attributes) -> TemplateTrace {
        TemplateTrace::new(
            &self.source,
            self.render(attributes),
            self.expressions(),
            attributes,
        )
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

fn push_text(
    pieces: &mut Vec<Piece>,
    text: &str,
    start: usize,
    end: usize,
) -> Result<(), ExpressionError> {
    let literal = &text[start..end];
    if let Some(at) = literal.find("}}") {
        let error = ExpressionError::at(start + at, "`}}` without a `{{` before it");
        return Err(error.locate(text, 0));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Ok(())
}

/// The byte at which the `}}` stands that ends an expression.
fn expression_end(text: &str, start: usize) -> Result<usize, ExpressionError> {
    // Bounded before it is read, since positions in it are of 16 bits.
    let mut lexer = Lexer::new(text, start);
    let mut open = 0_usize;
    loop {
        let (token, span) = lexer.next()?;
        match token {
            Token::Mark("{") => open += 1,
            Token::Mark("}") if open > 0 => open -= 1,
            Token::Mark("}") => {
                let at = usize::from(span.start);
                return if text[at..].starts_with("}}") {
                    Ok(at)
                } else {
                    Err(ExpressionError::at(at, "an expression ends with `}}`"))
                };
            }
            Token::End => {
                return Err(ExpressionError::at(
                    start - 2,
                    "`{{` without a `}}` after it",
                ));
            }
            _ => {}
        }
    }
}

fn compile_part(text: &str, start: usize, end: usize) -> Result<Expression, ExpressionError> {
    let source = text[start..end].trim();
    let base = start + text[start..end].len() - text[start..end].trim_start().len();
    if source.is_empty() {
        return Err(
            ExpressionError::at(start, "the expression between `{{` and `}}` is empty")
                .locate(text, 0),
        );
    }
    let expression = Expression::compile_within(source, ExpressionPurpose::Lenient, MAX_SOURCE)
        .map_err(|error| error.locate(text, base))?;
    if !expression.is_scalar() {
        let message = format!(
            "`{source}` is {}, which has no single value to put into a text; use it in a rule, or take one entry of it",
            expression.type_with_article()
        );
        return Err(ExpressionError::at(base, message).locate(text, 0));
    }
    Ok(expression)
}

/// The value of one expression, which must not be empty.
pub(crate) fn value<'a>(
    expression: &'a Expression,
    attributes: &'a Attributes,
) -> Result<std::borrow::Cow<'a, str>, RenderError> {
    let of = || expression.source().to_owned();
    match expression.render(attributes) {
        Ok(Some(text)) if !text.is_empty() => Ok(text),
        Ok(_) => Err(RenderError::Empty { expression: of() }),
        Err(EvaluationError::Unset { attribute }) => Err(RenderError::Missing {
            attribute,
            expression: of(),
        }),
        Err(cause) => Err(RenderError::Evaluation {
            expression: of(),
            cause,
        }),
    }
}

/// Why a template has no text for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The caller has no such attribute.
    #[error("`{{{{ {expression} }}}}`: attribute `{attribute}` is not set")]
    Missing {
        /// The full name of the attribute.
        attribute: &'static str,
        /// The expression that needs it.
        expression: String,
    },
    /// An expression came to nothing.
    #[error("`{{{{ {expression} }}}}` is empty")]
    Empty {
        /// The expression.
        expression: String,
    },
    /// An expression has no value.
    #[error("`{{{{ {expression} }}}}`: {cause}")]
    Evaluation {
        /// The expression.
        expression: String,
        /// Why.
        #[source]
        cause: EvaluationError,
    },
    /// A value cannot stand where it is, in a path or a DNS name.
    #[error("`{{{{ {expression} }}}}` is {value:?}: {reason}")]
    Segment {
        /// The expression.
        expression: String,
        /// Its value, cut if it is long.
        value: String,
        /// What of it cannot be.
        reason: &'static str,
    },
    /// A segment of a path became one that means a direction: `.` or `..`.
    #[error("a segment of the path becomes {segment:?}")]
    Relative {
        /// The segment.
        segment: String,
    },
    /// The text is longer than allowed.
    #[error("the text is longer than {MAX_RENDERED} bytes")]
    TooLong,
}

/// A rendered text with everything that was seen on the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TemplateTrace {
    /// The template as written.
    pub template: String,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Every expression in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Trace>,
}

impl TemplateTrace {
    fn new<'e>(
        template: &str,
        result: Result<String, RenderError>,
        expressions: impl Iterator<Item = &'e Expression>,
        attributes: &Attributes,
    ) -> Self {
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let parts = expressions
            .map(|expression| expression.explain(attributes))
            .collect();
        Self {
            template: template.to_owned(),
            value,
            error,
            parts,
        }
    }
}

#[cfg(test)]
mod tests;
