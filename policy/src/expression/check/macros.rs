//! The macros: `has`, and those that go over a list.

use super::presence::{Fact, Facts};
use super::{Checker, Typed, path_of};
use crate::expression::error::ExpressionError;
use crate::expression::node::{Comprehension, Kind, Macro, Node};
use crate::expression::syntax::{Span, Syntax, SyntaxKind};
use crate::expression::types::{BOOL, Kinds, Scalar, TEXT, TEXTS};
use crate::schema;

impl Checker<'_> {
    pub(super) fn has(&mut self, argument: Option<Syntax>, span: Span) -> Typed {
        let usage = "has(…) asks whether an attribute is set, as in `has(join.github.environment)`";
        let Some(Syntax {
            kind: SyntaxKind::Select { of, name },
            span: inner,
            ..
        }) = argument
        else {
            return Err(ExpressionError::new(span, usage));
        };
        let path = path_of(&of)
            .filter(|path| {
                self.variable(path.split('.').next().unwrap_or_default())
                    .is_none()
            })
            .map(|path| format!("{path}.{name}"));
        let mut facts = Facts::default();
        let leaf = path.as_deref().and_then(schema::index_of);
        let group = path.as_deref().and_then(schema::group_of);
        let kind = match (leaf, group, path) {
            (Some(index), ..) => {
                self.reads.add_leaf(index);
                self.note(index, inner);
                facts.yes.push(Fact::Attribute(index));
                facts.yes.push(Fact::Group(schema::by_index(index).group()));
                Kind::HasAttribute(index)
            }
            (None, Some(group), _) => {
                let (path, members) = schema::group_by_index(group);
                self.reads.add_group(group);
                self.note(members.start, inner);
                facts.yes.push(Fact::Group(path));
                Kind::HasGroup(group)
            }
            (None, None, Some(path))
                if !path
                    .match_indices('.')
                    .any(|(end, _)| schema::index_of(&path[..end]).is_some()) =>
            {
                return Err(self.unknown(&path, inner));
            }
            _ => {
                let (of, kinds) = self.any(*of)?;
                if !matches!(kinds, Kinds::Map(_) | Kinds::MultiMap) {
                    let message = format!("`{}` is {}; {usage}", self.text(of.span), kinds.a());
                    return Err(ExpressionError::new(inner, message));
                }
                facts.yes.push(Fact::Entry(
                    self.text(of.span).to_owned(),
                    format!("{name:?}"),
                ));
                Kind::HasKey(Box::new((of, name.into())))
            }
        };
        Ok((Node { kind, span }, BOOL, facts))
    }

    pub(super) fn comprehension(
        &mut self,
        what: Macro,
        over: Syntax,
        mut arguments: Vec<Syntax>,
        span: Span,
    ) -> Result<(Kind, Kinds), ExpressionError> {
        let usage = || {
            ExpressionError::new(
                span,
                "is written as in `list.exists(x, x == \"a\")`: a name, then what is asked of it",
            )
        };
        let filtered = what == Macro::Map && arguments.len() == 3;
        if arguments.len() != 2 && !filtered {
            return Err(usage());
        }
        let body = arguments.pop().ok_or_else(usage)?;
        let filter = if filtered { arguments.pop() } else { None };
        let variable = match arguments.pop().map(|syntax| syntax.kind) {
            Some(SyntaxKind::Name(name)) => name,
            _ => return Err(usage()),
        };
        let (over, kinds) = self.any(over)?;
        let element = match kinds {
            Kinds::List(element) => Kinds::Scalar(element.unwrap_or(Scalar::Text)),
            Kinds::Map(_) | Kinds::MultiMap => TEXT,
            Kinds::Scalar(_) => {
                let message = format!(
                    "`{}` is {}, not a list or map",
                    self.text(over.span),
                    kinds.a()
                );
                return Err(ExpressionError::new(over.span, message));
            }
        };
        // What is known of an outer variable of this name says nothing of the inner.
        let known = std::mem::take(&mut self.known);
        self.known.extend(
            known
                .iter()
                .filter(|fact| !matches!(fact, Fact::Entry(..)))
                .cloned(),
        );
        self.variables.push((variable, element));
        let checked = (|| {
            let filter = filter.map(|filter| self.bool(filter)).transpose()?;
            let (filter, facts) = filter.map_or((None, Facts::default()), |(node, facts)| {
                (Some(node), facts)
            });
            let (body, kinds) = self.knowing(facts.yes, |checker| checker.any(body))?;
            Ok((filter, body, kinds))
        })();
        self.variables.pop();
        self.known = known;
        let (filter, body, body_kinds) = checked?;
        let result = match (what, body_kinds) {
            (Macro::Map, Kinds::Scalar(scalar)) => Kinds::List(Some(scalar)),
            (Macro::Map, _) => {
                let message = format!(
                    "`map` makes a list of strings, ints or bools, not of {}s",
                    body_kinds.name()
                );
                return Err(ExpressionError::new(body.span, message));
            }
            (_, BOOL) if what == Macro::Filter => match kinds {
                Kinds::List(element) => Kinds::List(element),
                _ => TEXTS,
            },
            (_, BOOL) => BOOL,
            _ => {
                let message = format!(
                    "`{}` is {}, not a bool",
                    self.text(body.span),
                    body_kinds.a()
                );
                return Err(ExpressionError::new(body.span, message));
            }
        };
        Ok((
            Kind::Comprehension(Box::new(Comprehension {
                what,
                over,
                body,
                filter,
            })),
            result,
        ))
    }
}
