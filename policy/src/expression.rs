//! Expressions over the attributes of a caller: a subset of CEL, the Common
//! Expression Language.
//!
//! An expression that compiles cannot fail for a reason that was in it: names,
//! types, functions, patterns and the use of optional attributes are checked
//! when it is written. It cannot harm either: the source is at most
//! [`MAX_SOURCE`] bytes, its tree at most [`MAX_NESTING`] deep, and one
//! evaluation takes at most [`MAX_STEPS`] steps, well under a millisecond.
//!
//! The parser and the evaluator are ours: the `cel` crate overflows the stack
//! on long input, has no static checker, no budget and no trace. It stays as
//! the second opinion of our tests, beside CEL's own conformance cases.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::attributes::Attributes;
use crate::reads::WorkloadReads;
use crate::schema::{self, Attribute};

use check::{Checked, Purpose};
use eval::Evaluator;
use syntax::Span;
use value::Val;

mod check;
mod error;
mod eval;
mod functions;
mod lexer;
mod node;
mod parser;
mod syntax;
mod trace;
mod types;
mod value;

pub use error::{EvaluationError, ExpressionError};
pub use trace::Trace;

pub(crate) use check::Purpose as ExpressionPurpose;
pub(crate) use lexer::{Lexer, Token};

/// Longest source of an expression, in bytes.
pub const MAX_SOURCE: usize = 1024;
/// Deepest tree of an expression.
pub const MAX_NESTING: usize = 32;
/// Most steps of one evaluation.
pub const MAX_STEPS: u32 = 10_000;

/// A compiled expression. Cheap to clone; equal sources share one.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    source: Box<str>,
    purpose: Purpose,
    checked: Checked,
}

impl Expression {
    /// Compiles an expression of a rule: optional attributes may be used only
    /// where `has(…)` was asked.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        Self::compile_within(source, Purpose::Rule, MAX_SOURCE)
    }

    /// Compiles for a purpose, with another bound on the length of the source.
    pub(crate) fn compile_within(
        source: &str,
        purpose: Purpose,
        longest: usize,
    ) -> Result<Self, ExpressionError> {
        if source.len() > longest.min(usize::from(u16::MAX)) {
            let message = format!(
                "the expression has {} bytes; at most {longest} are allowed",
                source.len()
            );
            return Err(ExpressionError::at(0, message).locate(source, 0));
        }
        if let Some(known) = interned(source, purpose) {
            return Ok(known);
        }
        let checked = parser::parse(source)
            .and_then(|syntax| check::check(source, syntax, purpose))
            .map_err(|error| error.locate(source, 0))?;
        Ok(intern(Self(Arc::new(Compiled {
            source: source.into(),
            purpose,
            checked,
        }))))
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Whether its value is true or false, as a rule needs it.
    pub fn is_bool(&self) -> bool {
        self.0.checked.kinds == types::BOOL
    }

    /// The name of the type of its value: `bool`, `list of strings`.
    pub fn type_name(&self) -> String {
        self.0.checked.kinds.name()
    }

    pub(crate) fn type_with_article(&self) -> String {
        self.0.checked.kinds.a()
    }

    /// The first attribute in it that only the agent vouches for.
    pub fn first_asserted(&self) -> Option<&'static Attribute> {
        self.0
            .checked
            .asserted
            .map(|(index, _)| schema::by_index(index))
    }

    /// What of a workload its value can depend on.
    pub fn workload_reads(&self) -> WorkloadReads {
        self.0.checked.reads
    }

    /// Names of the resources `sigstore_policy` that it asks for, each once. Who evaluates
    /// it says first what became of them: [`Attributes::set_signature_policy`].
    pub fn signature_policies(&self) -> impl Iterator<Item = &str> {
        self.0.checked.signature_policies.iter().map(AsRef::as_ref)
    }

    /// Whether it holds for a caller.
    pub fn holds(&self, attributes: &Attributes) -> Result<bool, EvaluationError> {
        let value = Evaluator::new(self.source(), attributes).value(&self.0.checked.root)?;
        Ok(matches!(value, Val::Bool(true)))
    }

    /// Its value for a caller.
    pub fn evaluate(&self, attributes: &Attributes) -> Result<serde_json::Value, EvaluationError> {
        let value = Evaluator::new(self.source(), attributes).value(&self.0.checked.root)?;
        Ok(value.to_json())
    }

    /// Its value for a caller, and that of each of its parts.
    pub fn explain(&self, attributes: &Attributes) -> Trace {
        let mut evaluator = Evaluator::recording(self.source(), attributes);
        let result = evaluator.value(&self.0.checked.root);
        let trace = evaluator.into_recorder().and_then(trace::Recorder::finish);
        // A literal has no trace of its own.
        trace.unwrap_or_else(|| Trace {
            expression: self.source().to_owned(),
            start: 0,
            value: result.as_ref().ok().map(Val::shown),
            error: result.as_ref().err().map(EvaluationError::to_string),
            parts: Vec::new(),
        })
    }

    /// Its text in a template; `None` if it is a list or map.
    pub(crate) fn render<'a>(
        &'a self,
        attributes: &'a Attributes,
    ) -> Result<Option<Cow<'a, str>>, EvaluationError> {
        let value = Evaluator::new(self.source(), attributes).value(&self.0.checked.root)?;
        Ok(value.render())
    }

    /// Whether optional attributes had to be asked for when it was written.
    pub(crate) fn is_strict(&self) -> bool {
        self.0.purpose == Purpose::Rule
    }

    pub(crate) fn is_scalar(&self) -> bool {
        matches!(self.0.checked.kinds, types::Kinds::Scalar(_))
    }

    /// An error at the first asserted attribute.
    pub(crate) fn asserted_error(&self) -> Option<ExpressionError> {
        let (index, span) = self.0.checked.asserted?;
        let path = schema::by_index(index).path;
        let message = format!(
            "the rule requires verified attributes, and `{path}` is only asserted by the agent"
        );
        Some(self.error(span, message))
    }

    /// An error at the first part that has no value for some callers, who
    /// would all be denied by a rule that denies.
    pub(crate) fn unguarded_error(&self) -> Option<ExpressionError> {
        let (what, span) = self.0.checked.unguarded.as_ref()?;
        let (message, guard) = match schema::attribute(what) {
            Some(attribute) => (
                format!(
                    "`{what}` is not set for every caller, and a rule that denies also denies those for whom it cannot be evaluated"
                ),
                format!("has({}) && …", attribute.group()),
            ),
            None => {
                let guard = match what.split_once('[') {
                    Some((map, key)) => format!("{} in {map} && …", key.trim_end_matches(']')),
                    None => format!("has({what}) && …"),
                };
                let message = format!(
                    "not every caller has `{what}`, and a rule that denies also denies those for whom it cannot be evaluated"
                );
                (message, guard)
            }
        };
        Some(self.error(*span, message).suggest(Some(guard)))
    }

    fn error(&self, span: Span, message: String) -> ExpressionError {
        ExpressionError::new(span, message).locate(self.source(), 0)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.purpose == other.0.purpose && self.0.source == other.0.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source())
    }
}

/// Every expression that is in use, by the hash of its source. The dead are
/// swept when the table has doubled.
#[derive(Default)]
struct Interned {
    table: HashMap<u64, Weak<Compiled>>,
    sweep_at: usize,
}

static INTERNED: LazyLock<Mutex<Interned>> = LazyLock::new(Mutex::default);

fn key(source: &str, purpose: Purpose) -> u64 {
    let mut hasher = DefaultHasher::new();
    (source, purpose).hash(&mut hasher);
    hasher.finish()
}

fn interned(source: &str, purpose: Purpose) -> Option<Expression> {
    let interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = interned.table.get(&key(source, purpose))?.upgrade()?;
    (*known.source == *source && known.purpose == purpose).then_some(Expression(known))
}

fn intern(expression: Expression) -> Expression {
    let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    if interned.table.len() >= interned.sweep_at {
        interned.table.retain(|_, weak| weak.strong_count() > 0);
        interned.sweep_at = 1024.max(interned.table.len() * 2);
    }
    let key = key(expression.source(), expression.0.purpose);
    interned.table.insert(key, Arc::downgrade(&expression.0));
    expression
}

#[cfg(test)]
mod tests;
