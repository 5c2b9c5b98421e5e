//! The grammar of CEL, without what no rule needs: messages, bytes, fractions.
//!
//! Precedence and associativity are those of the CEL specification. Depth is
//! counted while reading (brackets) and while building (chains), so that
//! neither this parser nor whoever walks its tree can run out of stack.

use super::MAX_NESTING;
use super::error::ExpressionError;
use super::lexer::{Lexer, Token};
use super::syntax::{Operator, Span, Syntax, SyntaxKind};

/// Words that CEL keeps for later (CEL specification, "RESERVED").
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(crate) struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    span: Span,
    /// The end of the token before.
    last: Span,
    depth: usize,
}

/// What stands between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joint {
    Or,
    And,
    Operator(Operator),
}

type Parsed = Result<Syntax, ExpressionError>;

/// Parses the whole of `source`.
pub(crate) fn parse(source: &str) -> Parsed {
    let mut parser = Parser::new(source)?;
    let expression = parser.expression()?;
    match parser.token {
        Token::End => Ok(expression),
        _ => Err(parser.unexpected("the end of the expression or an operator")),
    }
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Result<Self, ExpressionError> {
        let mut parser = Self {
            lexer: Lexer::new(source, 0),
            token: Token::End,
            span: Span::new(0, 0),
            last: Span::new(0, 0),
            depth: 0,
        };
        parser.advance()?;
        Ok(parser)
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(ExpressionError::too_deep(self.span));
        }
        let condition = self.operation(0)?;
        let result = if self.take("?")? {
            let yes = self.operation(0)?;
            self.expect(":")?;
            let no = self.expression()?;
            let span = condition.span.to(no.span);
            Syntax::new(
                SyntaxKind::Conditional(Box::new((condition, yes, no))),
                span,
            )
        } else {
            Ok(condition)
        };
        self.depth -= 1;
        result
    }

    /// Operands and the operators between them that bind at least as `least`.
    /// One function for all levels, so that a bracket costs few frames of stack.
    fn operation(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        let mut before = None;
        while let Some((level, joint)) = self.joint().filter(|(level, _)| *level >= least) {
            self.advance()?;
            let right = self.operation(level + 1)?;
            let span = left.span.to(right.span);
            left = match joint {
                // `a && b && c`: one node, however long.
                Joint::And | Joint::Or if before == Some(joint) => left.extend(right, span)?,
                Joint::And => Syntax::new(SyntaxKind::And(vec![left, right]), span)?,
                Joint::Or => Syntax::new(SyntaxKind::Or(vec![left, right]), span)?,
                Joint::Operator(operator) => {
                    let sides = Box::new((left, right));
                    Syntax::new(SyntaxKind::Binary { operator, sides }, span)?
                }
            };
            before = Some(joint);
        }
        Ok(left)
    }

    /// The operator that is next, and how strongly it binds.
    fn joint(&self) -> Option<(u8, Joint)> {
        Some(match &self.token {
            Token::Mark("||") => (0, Joint::Or),
            Token::Mark("&&") => (1, Joint::And),
            Token::Mark("==") => (2, Joint::Operator(Operator::Equal)),
            Token::Mark("!=") => (2, Joint::Operator(Operator::NotEqual)),
            Token::Mark("<") => (2, Joint::Operator(Operator::Less)),
            Token::Mark("<=") => (2, Joint::Operator(Operator::LessEqual)),
            Token::Mark(">") => (2, Joint::Operator(Operator::Greater)),
            Token::Mark(">=") => (2, Joint::Operator(Operator::GreaterEqual)),
            Token::Name(name) if name == "in" => (2, Joint::Operator(Operator::In)),
            Token::Mark("+") => (3, Joint::Operator(Operator::Add)),
            Token::Mark("-") => (3, Joint::Operator(Operator::Subtract)),
            Token::Mark("*") => (4, Joint::Operator(Operator::Multiply)),
            Token::Mark("/") => (4, Joint::Operator(Operator::Divide)),
            Token::Mark("%") => (4, Joint::Operator(Operator::Modulo)),
            _ => return None,
        })
    }

    fn unary(&mut self) -> Parsed {
        let mark = match self.token {
            Token::Mark(mark @ ("!" | "-")) => mark,
            _ => return self.member(),
        };
        let mut starts = Vec::new();
        while self.is(mark) {
            starts.push(self.span);
            self.advance()?;
            // `-9223372036854775808` is one number.
            if let (Token::Int(number), "-") = (&self.token, mark) {
                let Some(number) = 0_i64.checked_sub_unsigned(*number) else {
                    return Err(ExpressionError::new(
                        self.span,
                        "is not a number of 64 bits",
                    ));
                };
                let start = starts.pop().unwrap_or(self.span);
                self.advance()?;
                let literal = Syntax::new(SyntaxKind::Int(number), start.to(self.last))?;
                let literal = self.members(literal)?;
                return Self::prefix(literal, &starts, mark);
            }
        }
        if matches!(self.token, Token::Mark("!" | "-")) {
            return Err(self.unexpected("a value"));
        }
        let operand = self.member()?;
        Self::prefix(operand, &starts, mark)
    }

    fn prefix(mut operand: Syntax, starts: &[Span], mark: &str) -> Parsed {
        for start in starts.iter().rev() {
            let span = start.to(operand.span);
            let kind = if mark == "!" {
                SyntaxKind::Not
            } else {
                SyntaxKind::Negate
            };
            operand = Syntax::new(kind(Box::new(operand)), span)?;
        }
        Ok(operand)
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut of: Syntax) -> Parsed {
        loop {
            let start = of.span;
            if self.take(".")? {
                let name_span = self.span;
                let name = match &self.token {
                    Token::Name(name)
                        if !matches!(name.as_str(), "true" | "false" | "null" | "in") =>
                    {
                        name.clone()
                    }
                    _ => return Err(self.unexpected("the name of an attribute or function")),
                };
                self.advance()?;
                let kind = if self.take("(")? {
                    let arguments = self.list(")")?;
                    SyntaxKind::Call {
                        target: Some(Box::new(of)),
                        name,
                        name_span,
                        arguments,
                    }
                } else {
                    SyntaxKind::Select {
                        of: Box::new(of),
                        name,
                    }
                };
                of = Syntax::new(kind, start.to(self.last))?;
            } else if self.take("[")? {
                let key = Box::new(self.expression()?);
                self.expect("]")?;
                of = Syntax::new(
                    SyntaxKind::Index {
                        of: Box::new(of),
                        key,
                    },
                    start.to(self.last),
                )?;
            } else {
                return Ok(of);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let start = self.span;
        let kind = match std::mem::replace(&mut self.token, Token::End) {
            Token::Int(number) => {
                let Ok(number) = i64::try_from(number) else {
                    return Err(ExpressionError::new(start, "is not a number of 64 bits"));
                };
                SyntaxKind::Int(number)
            }
            Token::Text(text) => SyntaxKind::Text(text),
            Token::Name(name) => return self.named(name, start),
            Token::Mark("(") => {
                self.advance()?;
                let mut inner = self.expression()?;
                self.expect(")")?;
                inner.span = start.to(self.last);
                return Ok(inner);
            }
            Token::Mark("[") => {
                self.advance()?;
                let elements = self.list("]")?;
                return Syntax::new(SyntaxKind::List(elements), start.to(self.last));
            }
            Token::Mark("{") => {
                self.advance()?;
                return self.map(start);
            }
            other => {
                self.token = other;
                return Err(self.unexpected("a value"));
            }
        };
        self.advance()?;
        Syntax::new(kind, start)
    }

    fn named(&mut self, name: String, start: Span) -> Parsed {
        self.advance()?;
        let kind = match name.as_str() {
            "true" => SyntaxKind::Bool(true),
            "false" => SyntaxKind::Bool(false),
            "null" => {
                return Err(ExpressionError::new(
                    start,
                    "there is no `null` here; whether an attribute is set is asked with `has(…)`",
                ));
            }
            "in" => {
                return Err(ExpressionError::new(
                    start,
                    "`in` stands between a value and a list",
                ));
            }
            word if RESERVED.contains(&word) => {
                return Err(ExpressionError::new(
                    start,
                    format!("`{word}` is a reserved word of CEL"),
                ));
            }
            "and" | "or" | "not" if !self.is("(") => {
                let sign = match name.as_str() {
                    "and" => "&&",
                    "or" => "||",
                    _ => "!",
                };
                return Err(ExpressionError::new(
                    start,
                    format!("`{name}` is written `{sign}`"),
                ));
            }
            _ if self.is("(") => {
                self.advance()?;
                let arguments = self.list(")")?;
                SyntaxKind::Call {
                    target: None,
                    name,
                    name_span: start,
                    arguments,
                }
            }
            _ => SyntaxKind::Name(name),
        };
        Syntax::new(kind, start.to(self.last))
    }

    /// Expressions up to the closing bracket, which is taken.
    fn list(&mut self, end: &'static str) -> Result<Vec<Syntax>, ExpressionError> {
        let mut items = Vec::new();
        while !self.take(end)? {
            items.push(self.expression()?);
            if !self.take(",")? {
                self.expect(end)?;
                return Ok(items);
            }
            // A list may end in a comma, arguments may not.
            if end == ")" && self.is(end) {
                return Err(self.unexpected("a value"));
            }
        }
        Ok(items)
    }

    fn map(&mut self, start: Span) -> Parsed {
        let mut entries = Vec::new();
        while !self.take("}")? {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",")? {
                self.expect("}")?;
                break;
            }
        }
        Syntax::new(SyntaxKind::Map(entries), start.to(self.last))
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.token, Token::Mark(it) if it == mark)
    }

    fn take(&mut self, mark: &str) -> Result<bool, ExpressionError> {
        let found = self.is(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, mark: &'static str) -> Result<(), ExpressionError> {
        if self.take(mark)? {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{mark}`")))
        }
    }

    fn advance(&mut self) -> Result<(), ExpressionError> {
        self.last = self.span;
        (self.token, self.span) = self.lexer.next()?;
        Ok(())
    }

    fn unexpected(&self, wanted: &str) -> ExpressionError {
        let found = match &self.token {
            Token::Name(name) => format!("`{name}`"),
            Token::Int(number) => format!("the number {number}"),
            Token::Text(_) => "a text".to_owned(),
            Token::Mark(mark) => format!("`{mark}`"),
            Token::End => "the end".to_owned(),
        };
        let hint = match &self.token {
            Token::Name(name) if name == "and" => "; `and` is written `&&`",
            Token::Name(name) if name == "or" => "; `or` is written `||`",
            _ => "",
        };
        ExpressionError::new(self.span, format!("expected {wanted}, found {found}{hint}"))
    }
}
