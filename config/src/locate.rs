//! From the path of a field, and a place in its text, back to the file.

use std::fmt;

use crate::{
    Document, Mistake, Path,
    node::{Node, Position, Value},
    path::Step,
};

impl Document {
    /// A mistake at the value of a path, or where the nearest value around it begins.
    /// With `inner`, at that line and column (from 1) of the value's text: exactly,
    /// where the text stands in the file as it is (on one line, or as a literal
    /// block); else at the value, with the inner place told.
    pub fn mistake(
        &self,
        path: &Path,
        inner: Option<(usize, usize)>,
        message: impl fmt::Display,
    ) -> Mistake {
        let (node, whole) = self.find(path);
        let exact = inner
            .filter(|_| whole)
            .and_then(|inner| self.place_in(node, inner));
        let message = match (path.name(), inner, exact) {
            (Some(name), Some((1, column)), None) => {
                format!("`{name}`: at its column {column}: {message}")
            }
            (Some(name), Some((line, column)), None) => {
                format!("`{name}`: at its line {line}, column {column}: {message}")
            }
            (Some(name), ..) => format!("`{name}`: {message}"),
            (None, ..) => message.to_string(),
        };
        let position = exact.unwrap_or(node.position);
        Mistake::new(&self.file, position, message)
    }

    /// The value of a path, or the nearest around it, and whether it is the former.
    fn find(&self, path: &Path) -> (&Node, bool) {
        let mut node = &self.root;
        for step in path.steps() {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Mapping(entries)) => entries
                    .iter()
                    .find(|entry| entry.key == *key)
                    .map(|entry| &entry.value),
                (Step::Index(index), Value::Sequence(items)) => items.get(*index),
                // One value may stand for a sequence of one.
                (Step::Index(0), Value::Scalar { .. }) => Some(node),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }

    fn place_in(&self, node: &Node, (line, column): (usize, usize)) -> Option<Position> {
        let Value::Scalar { text, .. } = &node.value else {
            return None;
        };
        let source = |line: usize| self.source.lines().nth(line.checked_sub(1)?);
        let first = source(node.position.line)?;
        let skipped = node.position.column.checked_sub(1)?;
        let at = first.char_indices().nth(skipped).map(|(at, _)| at)?;
        let rest = &first[at..];
        let quote = usize::from(rest.starts_with(['\'', '"']));
        if !text.contains('\n') && rest[quote..].starts_with(text.as_str()) {
            let column = node.position.column + quote + column.checked_sub(1)?;
            let line = node.position.line;
            return (line > 0).then_some(Position { line, column });
        }
        if quote > 0 {
            return None;
        }
        // A literal block stands at its first line, or its first that is not blank.
        let wanted = text.lines().nth(line.checked_sub(1)?)?;
        let blank = text.lines().take_while(|line| line.is_empty()).count();
        let (line, indent) = [0, blank].into_iter().find_map(|above| {
            let line = (node.position.line + line).checked_sub(1 + above)?;
            let indent = source(line)?.strip_suffix(wanted)?;
            let fits = indent.bytes().all(|byte| byte == b' ');
            fits.then_some((line, indent.len()))
        })?;
        let column = indent + column;
        Some(Position { line, column })
    }
}

#[cfg(test)]
mod tests;
