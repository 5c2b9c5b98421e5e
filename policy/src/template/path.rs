//! Templates of the path of a SPIFFE ID.
//!
//! Who writes the template decides how many segments a path has. A value can
//! fill a segment, or part of one, and nothing else: it may have the letters
//! that SPIFFE allows in a path (SPIFFE-ID 2.2: `a-z A-Z 0-9 - _ .`), so no
//! `/`, no `%2f`, nothing that another reader would take for one, and what
//! becomes of a segment is never `.` or `..`.

use std::fmt;

use super::{Piece, RenderError, Template, TemplateTrace, value};
use crate::attributes::Attributes;
use crate::expression::{Expression, ExpressionError};
use crate::reads::WorkloadReads;

/// Longest value of one expression in a path, in bytes. The whole id has at
/// most 2,048 (SPIFFE-ID 2.3), which whoever makes the id checks.
const MAX_VALUE: usize = 2048;

/// The path of a SPIFFE ID with expressions in it: `/ci/{{ join.github.actor }}`.
#[derive(Clone, PartialEq, Eq)]
pub struct PathTemplate(Template);

impl PathTemplate {
    /// Compiles a path. Its own letters must be those of a SPIFFE path.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        let template = Template::compile(text)?;
        let error = |at, message: &str| Err(ExpressionError::at(at, message).locate(text, 0));
        if !text.starts_with('/') {
            return error(0, "the path of a SPIFFE ID begins with `/`");
        }
        let literal = [Piece::Text(text.into())];
        let pieces = if template.is_literal() {
            &literal
        } else {
            template.pieces()
        };

        let mut at = 0;
        // The literal part of the segment that is being read; `None` if a value is in it.
        let mut segment = Some(String::new());
        for piece in pieces {
            match piece {
                Piece::Expression(_) => {
                    segment = None;
                    at = text[at..].find("{{").map_or(text.len(), |open| at + open);
                    at = end_of_expression(text, at);
                }
                Piece::Text(literal) => {
                    for (offset, c) in literal.char_indices() {
                        let here = at + offset;
                        match c {
                            '/' => {
                                if here > 0 {
                                    check_segment(segment.as_deref(), text, here)?;
                                }
                                segment = Some(String::new());
                            }
                            c if is_allowed(c) => {
                                if let Some(segment) = &mut segment {
                                    segment.push(c);
                                }
                            }
                            _ => {
                                let message = format!(
                                    "{c:?} cannot be in the path of a SPIFFE ID; only a-z, A-Z, 0-9, `-`, `_` and `.` can"
                                );
                                return error(here, &message);
                            }
                        }
                    }
                    at += literal.len();
                }
            }
        }
        check_segment(segment.as_deref(), text, text.len())?;
        Ok(Self(template))
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// Whether it is the same path for every caller.
    pub fn is_literal(&self) -> bool {
        self.0.is_literal()
    }

    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.0.expressions()
    }

    /// See [`Template::workload_reads`].
    pub fn workload_reads(&self) -> WorkloadReads {
        self.0.workload_reads()
    }

    /// The path for a caller. It has as many segments as the template.
    pub fn render(&self, attributes: &Attributes) -> Result<String, RenderError> {
        if self.is_literal() {
            return Ok(self.source().to_owned());
        }
        let mut path = String::with_capacity(self.source().len());
        for piece in self.0.pieces() {
            match piece {
                Piece::Text(literal) => path.push_str(literal),
                Piece::Expression(expression) => {
                    let value = value(expression, attributes)?;
                    if let Some(reason) = unfit(&value) {
                        return Err(RenderError::Segment {
                            expression: expression.source().to_owned(),
                            value: value.chars().take(64).collect(),
                            reason,
                        });
                    }
                    path.push_str(&value);
                }
            }
            if path.len() > super::MAX_RENDERED {
                return Err(RenderError::TooLong);
            }
        }
        match path
            .split('/')
            .find(|segment| matches!(*segment, "." | ".."))
        {
            Some(segment) => Err(RenderError::Relative {
                segment: segment.to_owned(),
            }),
            None => Ok(path),
        }
    }

    /// The path for a caller or why there is none, with the value of every part.
    pub fn explain(&self, attributes: &Attributes) -> TemplateTrace {
        TemplateTrace::new(
            self.source(),
            self.render(attributes),
            self.expressions(),
            attributes,
        )
    }
}

impl fmt::Debug for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathTemplate({:?})", self.source())
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Why a value cannot be in a segment.
fn unfit(value: &str) -> Option<&'static str> {
    if value.contains('/') {
        Some(
            "a value cannot bring a `/` into a path; take a part of it, as in `.split(\"/\")[1]`, or `.replace(\"/\", \"-\")`",
        )
    } else if !value.chars().all(is_allowed) {
        Some("only a-z, A-Z, 0-9, `-`, `_` and `.` can be in the path of a SPIFFE ID")
    } else if value.len() > MAX_VALUE {
        Some("it is longer than a SPIFFE ID can be")
    } else {
        None
    }
}

/// A segment that ends at `end`; `None` if a value is in it.
fn check_segment(segment: Option<&str>, text: &str, end: usize) -> Result<(), ExpressionError> {
    let message = match segment {
        Some("") => "the path has an empty segment",
        Some(".") => "the path has a segment `.`",
        Some("..") => "the path has a segment `..`",
        _ => return Ok(()),
    };
    Err(ExpressionError::at(end, message).locate(text, 0))
}

/// The byte after the `}}` of the expression that begins at `open`.
fn end_of_expression(text: &str, open: usize) -> usize {
    super::expression_end(text, open + 2).map_or(text.len(), |end| end + 2)
}
