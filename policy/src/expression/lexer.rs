//! Words of an expression, by CEL's lexical rules (CEL specification, "Syntax").

use super::error::ExpressionError;
use super::syntax::Span;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Name(String),
    Int(u64),
    Text(String),
    /// An operator or a bracket.
    Mark(&'static str),
    End,
}

/// Reads one token after the other.
pub(crate) struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

/// Longest first.
const MARKS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",",
    "(", ")", "[", "]", "{", "}", "=", "&",
];

impl<'a> Lexer<'a> {
    /// Begins at byte `at` of `source`.
    pub(crate) fn new(source: &'a str, at: usize) -> Self {
        Self { source, at }
    }

    pub(crate) fn next(&mut self) -> Result<(Token, Span), ExpressionError> {
        self.skip_blanks();
        let start = self.at;
        let token = self.token()?;
        Ok((token, Span::new(start, self.at)))
    }

    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn token(&mut self) -> Result<Token, ExpressionError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if let Some(text) = self.text()? {
            return Ok(Token::Text(text));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            self.at += length;
            return Ok(Token::Name(rest[..length].to_owned()));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) else {
            let hint = match first {
                '|' => "; `or` is written `||`",
                _ => "",
            };
            return Err(self.error(format!("{first:?} has no meaning here{hint}")));
        };
        match mark {
            "=" => return Err(self.error("`=` has no meaning; equality is written `==`")),
            "&" => return Err(self.error("`&` has no meaning; `and` is written `&&`")),
            _ => self.at += mark.len(),
        }
        Ok(Token::Mark(mark))
    }

    fn number(&mut self) -> Result<Token, ExpressionError> {
        let rest = self.rest();
        let word = &rest[..rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len())];
        let fraction = rest[word.len()..]
            .strip_prefix('.')
            .is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()));
        let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
            Some(hex) => (hex, 16),
            None => (word, 10),
        };
        let number = u64::from_str_radix(digits, radix)
            .ok()
            .filter(|_| !digits.starts_with('+'));
        match number {
            Some(number) if !fraction => {
                self.at += word.len();
                Ok(Token::Int(number))
            }
            _ => Err(self.error("is not a number that can be used here: only whole numbers of 64 bits, such as 42 or 0x2A")),
        }
    }

    /// A quoted text, if one begins here.
    fn text(&mut self) -> Result<Option<String>, ExpressionError> {
        let start = self.at;
        let rest = self.rest();
        let prefix = rest.find(['"', '\'']).filter(|length| {
            *length <= 2
                && rest[..*length]
                    .chars()
                    .all(|c| matches!(c, 'r' | 'R' | 'b' | 'B'))
        });
        let Some(prefix) = prefix else {
            return Ok(None);
        };
        let letters = rest[..prefix].to_ascii_lowercase();
        match letters.as_str() {
            "" | "r" => {}
            "b" | "br" | "rb" => return Err(self.error("bytes (b\"…\") cannot be used here")),
            _ => return Ok(None),
        }
        let raw = letters == "r";
        let body = &rest[prefix..];
        let quote = &body[..1];
        let triple = quote.repeat(3);
        let end = if body.starts_with(&triple) {
            triple.as_str()
        } else {
            quote
        };
        self.at += prefix + end.len();

        let mut text = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(end) {
                self.at += end.len();
                return Ok(Some(text));
            }
            match rest.chars().next() {
                Some('\n' | '\r') if end.len() == 1 => break,
                None => break,
                Some('\\') if !raw => text.push(self.escape()?),
                Some(c) => {
                    self.at += c.len_utf8();
                    text.push(c);
                }
            }
        }
        Err(ExpressionError::at(start, "this text has no closing quote"))
    }

    fn escape(&mut self) -> Result<char, ExpressionError> {
        let rest = &self.rest()[1..];
        let Some(letter) = rest.chars().next() else {
            return Err(self.error("this text has no closing quote"));
        };
        let simple = match letter {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            '\\' | '?' | '"' | '\'' | '`' => Some(letter),
            _ => None,
        };
        if let Some(c) = simple {
            self.at += 2;
            return Ok(c);
        }
        let (skip, length, radix) = match letter {
            'x' | 'X' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => {
                let message = format!(
                    "`\\{letter}` is not an escape; a backslash is written `\\\\`, or use r\"…\""
                );
                return Err(self.error(message));
            }
        };
        let c = rest
            .get(skip..skip + length)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, radix).ok())
            .and_then(char::from_u32);
        let Some(c) = c else {
            return Err(self.error(format!(
                "`\\{letter}` is not followed by {length} digits of a character"
            )));
        };
        self.at += 1 + skip + length;
        Ok(c)
    }

    fn error(&self, message: impl Into<String>) -> ExpressionError {
        ExpressionError::at(self.at, message)
    }
}
