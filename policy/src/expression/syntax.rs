//! The tree of an expression as it was written, before names and types are known.

use super::MAX_NESTING;
use super::error::ExpressionError;

/// A range of bytes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) start: u16,
    pub(crate) end: u16,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Sources are bounded far below 64 kB before they are read.
        Self {
            start: start as u16,
            end: end as u16,
        }
    }

    pub(crate) fn to(self, end: Self) -> Self {
        Self {
            start: self.start,
            end: end.end,
        }
    }

    pub(crate) fn text(self, source: &str) -> &str {
        source
            .get(usize::from(self.start)..usize::from(self.end))
            .unwrap_or_default()
    }
}

#[derive(Debug)]
pub(crate) struct Syntax {
    pub(crate) kind: SyntaxKind,
    pub(crate) span: Span,
    /// The longest way down, itself counted.
    height: usize,
}

#[derive(Debug)]
pub(crate) enum SyntaxKind {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Syntax>),
    Map(Vec<(Syntax, Syntax)>),
    Name(String),
    Select {
        of: Box<Syntax>,
        name: String,
    },
    Index {
        of: Box<Syntax>,
        key: Box<Syntax>,
    },
    Call {
        target: Option<Box<Syntax>>,
        name: String,
        name_span: Span,
        arguments: Vec<Syntax>,
    },
    Not(Box<Syntax>),
    Negate(Box<Syntax>),
    And(Vec<Syntax>),
    Or(Vec<Syntax>),
    Binary {
        operator: Operator,
        sides: Box<(Syntax, Syntax)>,
    },
    Conditional(Box<(Syntax, Syntax, Syntax)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operator {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

impl Syntax {
    /// A node, unless that makes the tree too deep for those who walk it.
    pub(crate) fn new(kind: SyntaxKind, span: Span) -> Result<Self, ExpressionError> {
        let tallest = |nodes: &[Self]| nodes.iter().map(|node| node.height).max().unwrap_or(0);
        let height = 1 + match &kind {
            SyntaxKind::Bool(_)
            | SyntaxKind::Int(_)
            | SyntaxKind::Text(_)
            | SyntaxKind::Name(_) => 0,
            SyntaxKind::List(nodes) | SyntaxKind::And(nodes) | SyntaxKind::Or(nodes) => {
                tallest(nodes)
            }
            SyntaxKind::Map(entries) => entries
                .iter()
                .map(|(key, value)| key.height.max(value.height))
                .max()
                .unwrap_or(0),
            SyntaxKind::Select { of, .. } | SyntaxKind::Not(of) | SyntaxKind::Negate(of) => {
                of.height
            }
            SyntaxKind::Index { of, key } => of.height.max(key.height),
            SyntaxKind::Call {
                target, arguments, ..
            } => tallest(arguments).max(target.as_ref().map_or(0, |target| target.height)),
            SyntaxKind::Binary { sides, .. } => sides.0.height.max(sides.1.height),
            SyntaxKind::Conditional(parts) => {
                parts.0.height.max(parts.1.height).max(parts.2.height)
            }
        };
        if height > MAX_NESTING {
            return Err(ExpressionError::too_deep(span));
        }
        Ok(Self { kind, span, height })
    }

    /// One more part of a chain of `&&` or `||`.
    pub(crate) fn extend(mut self, part: Self, span: Span) -> Result<Self, ExpressionError> {
        self.span = span;
        self.height = self.height.max(1 + part.height);
        if self.height > MAX_NESTING {
            return Err(ExpressionError::too_deep(span));
        }
        if let SyntaxKind::And(parts) | SyntaxKind::Or(parts) = &mut self.kind {
            parts.push(part);
        }
        Ok(self)
    }
}
