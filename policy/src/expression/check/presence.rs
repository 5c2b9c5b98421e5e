//! Which attributes an expression has asked for before it uses them.

use super::{Checker, Purpose};
use crate::expression::error::ExpressionError;
use crate::expression::syntax::Span;
use crate::schema::{self, Presence, Trust};

/// What of a workload the verdict on signatures of its image depends on.
const SIGNATURES: [&str; 2] = [
    "workload.sigstore.image_digest",
    "workload.sigstore.signatures_hash",
];

/// Something that is known to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Attribute(u16),
    Group(&'static str),
    /// A map's entry: the map and the key as written.
    Entry(String, String),
}

/// What is known where a condition was true, and where it was false.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) yes: Vec<Fact>,
    pub(super) no: Vec<Fact>,
}

impl Checker<'_> {
    pub(super) fn knowing<T>(&mut self, facts: Vec<Fact>, check: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.known.len();
        self.known.extend(facts);
        let result = check(self);
        self.known.truncate(before);
        result
    }

    /// An attribute is read here.
    pub(super) fn used(&mut self, index: u16, span: Span) -> Result<(), ExpressionError> {
        self.reads.add_leaf(index);
        self.note(index, span);
        let attribute = schema::by_index(index);
        let asked = self.known.contains(&Fact::Attribute(index));
        match attribute.presence {
            Presence::Optional if !asked && self.purpose == Purpose::Rule => {
                let path = attribute.path;
                let message = format!("`{path}` is optional; ask first whether it is set");
                Err(ExpressionError::new(span, message).suggest(Some(format!("has({path}) && …"))))
            }
            Presence::Optional | Presence::WithGroup
                if !asked && !self.known.contains(&Fact::Group(attribute.group())) =>
            {
                self.unguarded(attribute.path.into(), span);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn note(&mut self, index: u16, span: Span) {
        if self.asserted.is_none() && schema::by_index(index).trust == Trust::Asserted {
            self.asserted = Some((index, span));
        }
    }

    /// Notes that a signature policy is asked for. What it says depends on the image and on
    /// what is signed for it, as the agent tells both.
    pub(crate) fn signature_policy(&mut self, name: &str, span: Span) {
        for path in SIGNATURES {
            if let Some(index) = schema::index_of(path) {
                self.reads.add_leaf(index);
                self.note(index, span);
            }
        }
        if !self.signature_policies.iter().any(|known| **known == *name) {
            self.signature_policies.push(name.into());
        }
    }

    pub(super) fn unguarded(&mut self, what: Box<str>, span: Span) {
        self.unguarded.get_or_insert((what, span));
    }
}
