//! Names and types, when the expression is written.
//!
//! What passes here can fail later for one reason only: a value that is not
//! there or does not fit (an absent entry, an overflow). So the checker also
//! follows which attributes an expression has asked `has(…)` for: an optional
//! one may be used where that is known to have been true.

use super::error::ExpressionError;
use super::functions;
use super::node::{Arithmetic, Comparison, Kind, Macro, Node};
use super::syntax::{Operator, Span, Syntax, SyntaxKind};
use super::types::{BOOL, INT, Kinds, Scalar, TEXT, TEXTS};
use crate::{
    reads::WorkloadReads,
    schema::{self, Type},
};

use presence::{Fact, Facts};

mod macros;
mod presence;

/// What an expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Optional attributes only after `has(…)`.
    Rule,
    /// What is not set is an error when evaluated.
    Lenient,
}

/// A checked expression.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) root: Node,
    pub(crate) kinds: Kinds,
    /// The first use of an asserted attribute.
    pub(crate) asserted: Option<(u16, Span)>,
    /// The first use of what may be unset for some callers, without asking.
    pub(crate) unguarded: Option<(Box<str>, Span)>,
    /// What of a workload it can depend on.
    pub(crate) reads: WorkloadReads,
    /// Names of the signature policies that it asks for, each once.
    pub(crate) signature_policies: Box<[Box<str>]>,
}

/// Checks `syntax`, which was parsed from `source`.
pub(crate) fn check(
    source: &str,
    syntax: Syntax,
    purpose: Purpose,
) -> Result<Checked, ExpressionError> {
    let mut checker = Checker {
        source,
        purpose,
        variables: Vec::new(),
        known: Vec::new(),
        asserted: None,
        unguarded: None,
        reads: WorkloadReads::default(),
        signature_policies: Vec::new(),
    };
    let (root, kinds, _) = checker.node(syntax)?;
    Ok(Checked {
        root,
        kinds,
        asserted: checker.asserted,
        unguarded: checker.unguarded,
        reads: checker.reads,
        signature_policies: checker.signature_policies.into(),
    })
}

pub(crate) struct Checker<'a> {
    source: &'a str,
    purpose: Purpose,
    variables: Vec<(String, Kinds)>,
    known: Vec<Fact>,
    asserted: Option<(u16, Span)>,
    unguarded: Option<(Box<str>, Span)>,
    reads: WorkloadReads,
    signature_policies: Vec<Box<str>>,
}

type Typed = Result<(Node, Kinds, Facts), ExpressionError>;

impl Checker<'_> {
    fn node(&mut self, syntax: Syntax) -> Typed {
        let span = syntax.span;
        let path = path_of(&syntax);
        let (kind, kinds) = match syntax.kind {
            SyntaxKind::Bool(flag) => (Kind::Bool(flag), BOOL),
            SyntaxKind::Int(number) => (Kind::Int(number), INT),
            SyntaxKind::Text(text) => (Kind::Text(text.into()), TEXT),
            SyntaxKind::List(elements) => self.list(elements)?,
            SyntaxKind::Map(entries) => self.map(entries)?,
            SyntaxKind::Name(name) => self.name(&name, span)?,
            SyntaxKind::Select { of, name } => return self.select(path, *of, &name, span),
            SyntaxKind::Index { of, key } => return self.index(*of, *key, span),
            SyntaxKind::Call {
                target,
                name,
                name_span,
                arguments,
            } => {
                return self.call(
                    target.map(|target| *target),
                    &name,
                    name_span,
                    arguments,
                    span,
                );
            }
            SyntaxKind::Not(of) => {
                let (of, facts) = self.bool(*of)?;
                let facts = Facts {
                    yes: facts.no,
                    no: facts.yes,
                };
                return Ok((
                    Node {
                        kind: Kind::Not(Box::new(of)),
                        span,
                    },
                    BOOL,
                    facts,
                ));
            }
            SyntaxKind::Negate(of) => (Kind::Negate(Box::new(self.of(*of, INT)?)), INT),
            SyntaxKind::And(parts) => {
                let (parts, facts) = self.logic(parts, |facts| &mut facts.yes)?;
                return Ok((
                    Node {
                        kind: Kind::And(parts),
                        span,
                    },
                    BOOL,
                    Facts {
                        yes: facts,
                        no: vec![],
                    },
                ));
            }
            SyntaxKind::Or(parts) => {
                let (parts, facts) = self.logic(parts, |facts| &mut facts.no)?;
                return Ok((
                    Node {
                        kind: Kind::Or(parts),
                        span,
                    },
                    BOOL,
                    Facts {
                        yes: vec![],
                        no: facts,
                    },
                ));
            }
            SyntaxKind::Binary { operator, sides } => return self.binary(operator, *sides, span),
            SyntaxKind::Conditional(parts) => self.conditional(*parts)?,
        };
        Ok((Node { kind, span }, kinds, Facts::default()))
    }

    /// A part that must have this type.
    pub(crate) fn of(&mut self, syntax: Syntax, wanted: Kinds) -> Result<Node, ExpressionError> {
        let (node, kinds) = self.any(syntax)?;
        if kinds != wanted {
            let message = format!(
                "`{}` is {}, not {}",
                self.text(node.span),
                kinds.a(),
                wanted.a()
            );
            return Err(ExpressionError::new(node.span, message));
        }
        Ok(node)
    }

    /// A part of any type.
    pub(crate) fn any(&mut self, syntax: Syntax) -> Result<(Node, Kinds), ExpressionError> {
        self.node(syntax).map(|(node, kinds, _)| (node, kinds))
    }

    fn bool(&mut self, syntax: Syntax) -> Result<(Node, Facts), ExpressionError> {
        let (node, kinds, facts) = self.node(syntax)?;
        if kinds != BOOL {
            let message = format!("`{}` is {}, not a bool", self.text(node.span), kinds.a());
            return Err(ExpressionError::new(node.span, message));
        }
        Ok((node, facts))
    }

    /// The parts of `&&` or `||`: each may rely on what the ones before said.
    fn logic(
        &mut self,
        parts: Vec<Syntax>,
        learnt: fn(&mut Facts) -> &mut Vec<Fact>,
    ) -> Result<(Box<[Node]>, Vec<Fact>), ExpressionError> {
        let before = self.known.len();
        let mut nodes = Vec::with_capacity(parts.len());
        for part in parts {
            let (node, mut facts) = self.bool(part)?;
            nodes.push(node);
            self.known.append(learnt(&mut facts));
        }
        Ok((nodes.into(), self.known.split_off(before)))
    }

    fn conditional(
        &mut self,
        parts: (Syntax, Syntax, Syntax),
    ) -> Result<(Kind, Kinds), ExpressionError> {
        let (condition, facts) = self.bool(parts.0)?;
        let (yes, yes_kinds) = self.knowing(facts.yes, |checker| checker.any(parts.1))?;
        let (no, no_kinds) = self.knowing(facts.no, |checker| checker.any(parts.2))?;
        if !yes_kinds.comparable(no_kinds) {
            let message = format!(
                "one branch is {}, the other {}",
                yes_kinds.a(),
                no_kinds.a()
            );
            return Err(ExpressionError::new(no.span, message));
        }
        let kinds = match yes_kinds {
            Kinds::List(None) | Kinds::Map(None) => no_kinds,
            _ => yes_kinds,
        };
        Ok((Kind::Conditional(Box::new([condition, yes, no])), kinds))
    }

    fn list(&mut self, elements: Vec<Syntax>) -> Result<(Kind, Kinds), ExpressionError> {
        let mut element = None;
        let nodes = elements
            .into_iter()
            .map(|syntax| self.scalar(syntax, &mut element, "list"))
            .collect::<Result<_, _>>()?;
        Ok((Kind::List(nodes), Kinds::List(element)))
    }

    fn map(&mut self, entries: Vec<(Syntax, Syntax)>) -> Result<(Kind, Kinds), ExpressionError> {
        let mut element = None;
        let mut keys = Vec::new();
        let mut nodes = Vec::new();
        for (key, value) in entries {
            let key = self.of(key, TEXT)?;
            if let Kind::Text(text) = &key.kind {
                if keys.contains(text) {
                    return Err(ExpressionError::new(
                        key.span,
                        format!("the key {text:?} is here twice"),
                    ));
                }
                keys.push(text.clone());
            }
            nodes.push((key, self.scalar(value, &mut element, "map")?));
        }
        Ok((Kind::Map(nodes.into()), Kinds::Map(element)))
    }

    /// An element of a list or map, all of one type.
    fn scalar(
        &mut self,
        syntax: Syntax,
        element: &mut Option<Scalar>,
        what: &str,
    ) -> Result<Node, ExpressionError> {
        let (node, kinds) = self.any(syntax)?;
        match (kinds, *element) {
            (Kinds::Scalar(scalar), None) => *element = Some(scalar),
            (Kinds::Scalar(scalar), Some(first)) if scalar == first => {}
            (_, Some(first)) => {
                let message = format!("this {what} holds {}s, this is {}", first.name(), kinds.a());
                return Err(ExpressionError::new(node.span, message));
            }
            (_, None) => {
                let message = format!(
                    "a {what} holds strings, ints or bools; this is {}",
                    kinds.a()
                );
                return Err(ExpressionError::new(node.span, message));
            }
        }
        Ok(node)
    }

    fn name(&mut self, name: &str, span: Span) -> Result<(Kind, Kinds), ExpressionError> {
        match self.variable(name) {
            Some((place, kinds)) => Ok((Kind::Variable(place), kinds)),
            None if schema::is_group(name) => Err(self.group_as_value(name, span)),
            None => Err(self.unknown(name, span)),
        }
    }

    fn variable(&self, name: &str) -> Option<(u8, Kinds)> {
        let place = self
            .variables
            .iter()
            .rposition(|(variable, _)| variable == name)?;
        Some((place as u8, self.variables[place].1))
    }

    fn select(&mut self, path: Option<String>, of: Syntax, name: &str, span: Span) -> Typed {
        let path = path.filter(|path| {
            self.variable(path.split('.').next().unwrap_or_default())
                .is_none()
        });
        if let Some(path) = path {
            if let Some(index) = schema::index_of(&path) {
                self.used(index, span)?;
                let kinds = Kinds::of(schema::by_index(index).r#type);
                return Ok((
                    Node {
                        kind: Kind::Attribute(index),
                        span,
                    },
                    kinds,
                    Facts::default(),
                ));
            }
            if schema::is_group(&path) {
                return Err(self.group_as_value(&path, span));
            }
            // `user.labels.team`: the attribute is further left.
            let of_attribute = path
                .match_indices('.')
                .any(|(end, _)| schema::index_of(&path[..end]).is_some());
            if !of_attribute {
                return Err(self.unknown(&path, span));
            }
        }
        let key = Syntax::new(
            SyntaxKind::Text(name.to_owned()),
            Span {
                start: span.end,
                end: span.end,
            },
        )?;
        self.index(of, key, span)
    }

    /// `map["key"]`, `map.key` or `list[0]`.
    fn index(&mut self, of: Syntax, key: Syntax, span: Span) -> Typed {
        let (of, kinds) = self.any(of)?;
        let (key, key_kinds) = self.any(key)?;
        let (wanted, result) = match kinds {
            Kinds::Map(Some(scalar)) => (TEXT, Kinds::Scalar(scalar)),
            Kinds::MultiMap => (TEXT, TEXTS),
            Kinds::List(Some(scalar)) => (INT, Kinds::Scalar(scalar)),
            Kinds::List(None) | Kinds::Map(None) => {
                return Err(ExpressionError::new(
                    span,
                    format!("this {} has no entries", kinds.name()),
                ));
            }
            Kinds::Scalar(_) => {
                let message = format!(
                    "`{}` is {}; it has no entries",
                    self.text(of.span),
                    kinds.a()
                );
                return Err(ExpressionError::new(span, message));
            }
        };
        if key_kinds != wanted {
            let message = format!(
                "`{}` is {}, its entries are named by {}, not {}",
                self.text(of.span),
                kinds.a(),
                wanted.a(),
                key_kinds.a()
            );
            return Err(ExpressionError::new(key.span, message));
        }
        if let Kind::Attribute(index) = of.kind
            && schema::by_index(index).r#type != Type::List
        {
            let entry = Fact::Entry(self.text(of.span).to_owned(), self.key_text(&key));
            if !self.known.contains(&entry) {
                self.unguarded(self.text(span).into(), span);
            }
        }
        let kind = Kind::Index(Box::new([of, key]));
        Ok((Node { kind, span }, result, Facts::default()))
    }

    /// A key, the same for `map.key` and `map["key"]`.
    fn key_text(&self, key: &Node) -> String {
        match &key.kind {
            Kind::Text(text) => format!("{text:?}"),
            _ => self.text(key.span).to_owned(),
        }
    }

    fn binary(&mut self, operator: Operator, sides: (Syntax, Syntax), span: Span) -> Typed {
        let (left, left_kinds) = self.any(sides.0)?;
        let (right, right_kinds) = self.any(sides.1)?;
        let sides = |left, right| Box::new([left, right]);
        let comparison = match operator {
            Operator::Equal => Some(Comparison::Equal),
            Operator::NotEqual => Some(Comparison::NotEqual),
            Operator::Less => Some(Comparison::Less),
            Operator::LessEqual => Some(Comparison::LessEqual),
            Operator::Greater => Some(Comparison::Greater),
            Operator::GreaterEqual => Some(Comparison::GreaterEqual),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let fits = match comparison {
                Comparison::Equal | Comparison::NotEqual => left_kinds.comparable(right_kinds),
                _ => left_kinds == right_kinds && matches!(left_kinds, Kinds::Scalar(_)),
            };
            if !fits {
                return Err(self.mismatch(operator, &left, left_kinds, right_kinds, span));
            }
            return Ok((
                Node {
                    kind: Kind::Compare(comparison, sides(left, right)),
                    span,
                },
                BOOL,
                Facts::default(),
            ));
        }
        let arithmetic = match operator {
            Operator::In => {
                let fits = match right_kinds {
                    Kinds::List(element) | Kinds::Map(element @ None) => {
                        matches!(left_kinds, Kinds::Scalar(scalar) if element.is_none_or(|it| it == scalar))
                    }
                    Kinds::Map(_) | Kinds::MultiMap => left_kinds == TEXT,
                    Kinds::Scalar(_) => false,
                };
                if !fits {
                    return Err(self.mismatch(operator, &left, left_kinds, right_kinds, span));
                }
                let mut facts = Facts::default();
                if matches!(right_kinds, Kinds::Map(_) | Kinds::MultiMap) {
                    let map = self.text(right.span).to_owned();
                    facts.yes.push(Fact::Entry(map, self.key_text(&left)));
                }
                return Ok((
                    Node {
                        kind: Kind::In(sides(left, right)),
                        span,
                    },
                    BOOL,
                    facts,
                ));
            }
            Operator::Add if left_kinds == TEXT && right_kinds == TEXT => {
                let kind = Kind::Compute(Arithmetic::Add, sides(left, right));
                return Ok((Node { kind, span }, TEXT, Facts::default()));
            }
            Operator::Add => Arithmetic::Add,
            Operator::Subtract => Arithmetic::Subtract,
            Operator::Multiply => Arithmetic::Multiply,
            Operator::Divide => Arithmetic::Divide,
            _ => Arithmetic::Modulo,
        };
        if (left_kinds, right_kinds) != (INT, INT) {
            return Err(self.mismatch(operator, &left, left_kinds, right_kinds, span));
        }
        let kind = Kind::Compute(arithmetic, sides(left, right));
        Ok((Node { kind, span }, INT, Facts::default()))
    }

    fn mismatch(
        &self,
        operator: Operator,
        left: &Node,
        one: Kinds,
        two: Kinds,
        span: Span,
    ) -> ExpressionError {
        let symbol = operator.symbol();
        let hint = match (operator, one, two) {
            (Operator::Equal, Kinds::Scalar(_), Kinds::List(_)) => {
                "; membership is asked with `in`"
            }
            (Operator::Equal, Kinds::List(_), Kinds::Scalar(_)) => {
                "; membership is asked with `value in list`"
            }
            (Operator::In, Kinds::Scalar(_), Kinds::Scalar(Scalar::Text)) => {
                "; part of a text is asked with `text.contains(part)`"
            }
            _ => "",
        };
        let message = format!(
            "`{}` {symbol} …: `{symbol}` does not go with {} and {}{hint}",
            self.text(left.span),
            one.a(),
            two.a()
        );
        ExpressionError::new(span, message)
    }

    fn call(
        &mut self,
        target: Option<Syntax>,
        name: &str,
        name_span: Span,
        mut arguments: Vec<Syntax>,
        span: Span,
    ) -> Typed {
        if name == "has" && target.is_none() {
            let argument = arguments.pop().filter(|_| arguments.is_empty());
            return self.has(argument, span);
        }
        let comprehension = match name {
            "all" => Some(Macro::All),
            "exists" => Some(Macro::Exists),
            "exists_one" | "existsOne" => Some(Macro::ExistsOne),
            "filter" => Some(Macro::Filter),
            "map" => Some(Macro::Map),
            _ => None,
        };
        let (kind, kinds) = match (target, comprehension) {
            (Some(target), Some(what)) => self.comprehension(what, target, arguments, span)?,
            (Some(target), None) => match &target.kind {
                SyntaxKind::Name(space)
                    if functions::is_namespace(space) && self.variable(space).is_none() =>
                {
                    let name = format!("{space}.{name}");
                    functions::call(self, &name, target.span.to(name_span), None, arguments)?
                }
                _ => functions::call(self, name, name_span, Some(target), arguments)?,
            },
            (None, _) => functions::call(self, name, name_span, None, arguments)?,
        };
        Ok((Node { kind, span }, kinds, Facts::default()))
    }

    fn unknown(&self, name: &str, span: Span) -> ExpressionError {
        let message = format!("`{name}` is not an attribute");
        ExpressionError::new(span, message).suggest(schema::suggestion(name))
    }

    fn group_as_value(&self, path: &str, span: Span) -> ExpressionError {
        let children = schema::children(path).join("`, `");
        ExpressionError::new(
            span,
            format!("`{path}` is a group of attributes; it has `{children}`"),
        )
    }

    pub(crate) fn text(&self, span: Span) -> &str {
        span.text(self.source)
    }
}

/// `a.b.c`, if it is nothing but names.
fn path_of(syntax: &Syntax) -> Option<String> {
    match &syntax.kind {
        SyntaxKind::Name(name) => Some(name.clone()),
        SyntaxKind::Select { of, name } => {
            let mut path = path_of(of)?;
            path.push('.');
            path.push_str(name);
            Some(path)
        }
        _ => None,
    }
}
