//! The tree of an expression whose names and types are known: what is kept and evaluated.
//!
//! Kept small: a hundred thousand rules are in memory at once.

use std::fmt;

use regex_lite::Regex;

use super::syntax::Span;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    /// A leaf of the schema, by its number.
    Attribute(u16),
    HasAttribute(u16),
    HasGroup(u16),
    /// `has(map.key)`.
    HasKey(Box<(Node, Box<str>)>),
    /// What a macro binds, by the number of macros around.
    Variable(u8),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Compare(Comparison, Box<[Node; 2]>),
    Compute(Arithmetic, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Conditional(Box<[Node; 3]>),
    Call(Function, Box<[Node]>),
    Matches(Box<(Node, Pattern)>),
    /// Whether the signature policies of these names are satisfied, all of them.
    PoliciesSatisfied(Box<[Node]>),
    Comprehension(Box<Comprehension>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Contains,
    EndsWith,
    StartsWith,
    Lower,
    Upper,
    Trim,
    Replace,
    Split,
    Join,
    Size,
    ToText,
    ToInt,
    EmailLocal,
}

/// `list.exists(variable, body)` and its sisters.
#[derive(Debug)]
pub(crate) struct Comprehension {
    pub(crate) what: Macro,
    pub(crate) over: Node,
    pub(crate) body: Node,
    /// The condition of `map` with three arguments.
    pub(crate) filter: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

/// A regular expression with the price of one byte of text.
pub(crate) struct Pattern {
    pub(crate) regex: Regex,
    /// Steps for each 64 bytes of text.
    pub(crate) price: u32,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.regex.as_str())
    }
}

impl Pattern {
    /// The largest program, in bytes of the compiled form.
    const LARGEST: usize = 16 * 1024;

    /// Compiles `source`. Matching takes time in proportion to the length of the
    /// text and the size of the program; the size is found by trying.
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        let mut size = 512;
        loop {
            let mut builder = regex_lite::RegexBuilder::new(source);
            match builder.size_limit(size).nest_limit(32).build() {
                Ok(regex) => {
                    return Ok(Self {
                        regex,
                        price: (size / 8) as u32,
                    });
                }
                Err(error) if !error.to_string().contains("size limit") => {
                    return Err(error.to_string());
                }
                Err(_) if size >= Self::LARGEST => return Err("it is too large".to_owned()),
                Err(_) => size *= 2,
            }
        }
    }
}
