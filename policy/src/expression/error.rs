//! What is wrong with an expression that does not compile.

use std::fmt;

use super::MAX_NESTING;
use super::syntax::Span;

/// An expression that cannot be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ExpressionError {
    /// The line in the text, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// The byte in the text.
    pub(crate) offset: usize,
}

impl ExpressionError {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self::at(usize::from(span.start), message)
    }

    pub(crate) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self {
            line: 1,
            column: 1,
            message: message.into(),
            suggestion: None,
            offset,
        }
    }

    pub(crate) fn too_deep(span: Span) -> Self {
        Self::new(
            span,
            format!(
                "is nested or chained more than {MAX_NESTING} deep; split it into several rules"
            ),
        )
    }

    pub(crate) fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }

    /// Works out line and column in `text`, in which the expression begins at byte `base`.
    pub(crate) fn locate(mut self, text: &str, base: usize) -> Self {
        self.offset += base;
        let before = text.get(..self.offset).unwrap_or(text);
        self.line = 1 + before.matches('\n').count();
        let line = before.rsplit('\n').next().unwrap_or_default();
        self.column = 1 + line.chars().count();
        self
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// Why an expression that compiled has no value for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The caller has no such attribute.
    #[error("attribute `{attribute}` is not set")]
    Unset {
        /// Its full name.
        attribute: &'static str,
    },
    /// A map has no such entry.
    #[error("`{map}` has no entry {key:?}")]
    NoSuchKey {
        /// The map, as it is written in the expression.
        map: String,
        /// The key that was asked for.
        key: String,
    },
    /// A list is shorter than an index into it.
    #[error("`{list}` has {length} entries, none at {index}")]
    OutOfRange {
        /// The list, as it is written in the expression.
        list: String,
        /// The index that was asked for.
        index: i64,
        /// How many entries there are.
        length: usize,
    },
    /// A number left the range of 64 bits, or was divided by zero.
    #[error("`{expression}` is not a number of 64 bits")]
    Arithmetic {
        /// The part that was computed, as written.
        expression: String,
    },
    /// `int(…)` of a text that is not a number.
    #[error("{text:?} is not a whole number")]
    NotANumber {
        /// The text.
        text: String,
    },
    /// `email.local` of a text that is not an e-mail address.
    #[error("{text:?} is not an e-mail address")]
    NotAnAddress {
        /// The text.
        text: String,
    },
    /// `replace` or `+` made a text that is longer than allowed.
    #[error(
        "`{expression}` makes a text of more than {} bytes",
        crate::attributes::MAX_TEXT
    )]
    TooLong {
        /// The part that was computed, as written.
        expression: String,
    },
    /// The work exceeds the budget of one evaluation.
    #[error("the evaluation takes more than {} steps", super::MAX_STEPS)]
    TooManySteps,
}
