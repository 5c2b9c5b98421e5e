//! What every part of an expression evaluated to.

use serde::Serialize;
use serde_json::Value as Json;

use super::error::EvaluationError;
use super::node::{Kind, Node};
use super::value::Val;

/// Most parts that one trace shows; macros over long lists have more.
const MAX_PARTS: usize = 256;

/// One part of an expression, the value it had, and the parts it is made of.
/// Parts that were not evaluated, because the ones before decided, are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The part as written.
    pub expression: String,
    /// The byte of the source at which it begins.
    pub start: usize,
    /// Its value, if it had one; cut if it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Why it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The parts it is made of, without those that are their own value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Trace>,
}

pub(crate) struct Recorder<'a> {
    source: &'a str,
    /// The parts seen so far of each part that is being evaluated.
    open: Vec<Vec<Trace>>,
    count: usize,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self {
            source,
            open: vec![Vec::new()],
            count: 0,
        }
    }

    pub(crate) fn enter(&mut self, node: &Node) {
        if !is_literal(node) {
            self.open.push(Vec::new());
        }
    }

    pub(crate) fn leave(&mut self, node: &Node, result: &Result<Val<'_>, EvaluationError>) {
        if is_literal(node) {
            return;
        }
        let parts = self.open.pop().unwrap_or_default();
        self.count += 1;
        if self.count > MAX_PARTS && self.open.len() > 1 {
            return;
        }
        if let Some(siblings) = self.open.last_mut() {
            siblings.push(Trace {
                expression: node.span.text(self.source).to_owned(),
                start: usize::from(node.span.start),
                value: result.as_ref().ok().map(Val::shown),
                error: result.as_ref().err().map(EvaluationError::to_string),
                parts,
            });
        }
    }

    /// A part that is not evaluated like the others, with why it is what it is.
    pub(crate) fn note(&mut self, node: &Node, value: bool, why: Option<&str>) {
        self.count += 1;
        if self.count > MAX_PARTS {
            return;
        }
        if let Some(siblings) = self.open.last_mut() {
            siblings.push(Trace {
                expression: node.span.text(self.source).to_owned(),
                start: usize::from(node.span.start),
                value: Some(Json::from(value)),
                error: why.map(str::to_owned),
                parts: Vec::new(),
            });
        }
    }

    /// The trace of the whole.
    pub(crate) fn finish(mut self) -> Option<Trace> {
        self.open.pop().and_then(|mut whole| whole.pop())
    }
}

fn is_literal(node: &Node) -> bool {
    match &node.kind {
        Kind::Bool(_) | Kind::Int(_) | Kind::Text(_) => true,
        Kind::List(elements) => elements.iter().all(is_literal),
        _ => false,
    }
}
