//! What is wrong with a file, and where.

use std::{error::Error, fmt, sync::Arc};

use crate::node::Position;

/// Every mistake of a file, in order of position. `Display`: one line each,
/// `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// A single mistake, for what is wrong with a file as a whole. `position`
    /// is line and column, from 1.
    pub fn one(file: &str, position: (usize, usize), message: impl fmt::Display) -> Self {
        Self::sorted(vec![Mistake {
            file: Arc::from(file),
            line: position.0,
            column: position.1,
            message: message.to_string(),
        }])
    }

    /// Those of a file, put in order, each once.
    pub fn sorted(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        // A node behind an alias is read once for each use, and is wrong each time.
        let mut seen = std::collections::HashSet::new();
        mistakes.retain(|mistake| seen.insert(mistake.clone()));
        Self { mistakes }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.mistakes.len()
    }

    /// Whether there is none (never, when returned as an error).
    pub fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Each, in order of position.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.mistakes.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Mistakes {}

/// One mistake. `Display`: `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mistake {
    /// The file's name, as it was given to the parser.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to do, on one line.
    pub message: String,
}

impl Mistake {
    pub(crate) fn new(file: &Arc<str>, position: Position, message: impl fmt::Display) -> Self {
        Self {
            file: file.clone(),
            line: position.line,
            column: position.column,
            message: one_line(&message.to_string()),
        }
    }
}

/// A message that may repeat a foreign text, on one line and without control
/// characters: they stand escaped.
pub fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")
    }
}
