//! Second stage: nodes into typed values.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use crate::{
    Free, Mistake, Mistakes, did_you_mean, format_duration,
    node::{self, Entry, Node, Position, Value},
    parse_duration,
};

/// One YAML document as a tree of positioned nodes.
#[derive(Debug, Clone)]
pub struct Document {
    pub(crate) file: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) root: Node,
}

impl Document {
    /// Parses every document of `text` (`---` separates them); empty ones are
    /// left out, so that empty text gives none. `file` is what errors call it.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Self>, Mistakes> {
        match Self::parse_each(file, text) {
            (documents, mistakes) if mistakes.is_empty() => Ok(documents),
            (_, mistakes) => Err(Mistakes::sorted(mistakes)),
        }
    }

    /// As [`Document::parse_all`], but a mistake that leaves sense in the rest (a key
    /// twice, a tag) does not keep the documents back. Nothing in them may be used
    /// if there is any mistake.
    pub fn parse_each(file: &str, text: &str) -> (Vec<Self>, Vec<Mistake>) {
        let file: Arc<str> = Arc::from(file);
        let source: Arc<str> = Arc::from(text);
        let (roots, mistakes) = node::parse(&file, text);
        let documents = roots.into_iter().map(|root| Self {
            file: file.clone(),
            source: source.clone(),
            root,
        });
        (documents.collect(), mistakes)
    }

    /// Resolves the whole document: `resolve` reads fields from the root mapping; any mistake recorded on the way, or
    /// key left unread, fails the whole (all are reported).
    pub fn resolve<T>(
        &self,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Result<T, Mistakes> {
        match self.read(resolve) {
            (Some(resolved), mistakes) if mistakes.is_empty() => Ok(resolved),
            (_, mistakes) => Err(Mistakes::sorted(mistakes)),
        }
    }

    /// As [`Document::resolve`], but what was read in spite of mistakes is given, too,
    /// for further checks. It may not be used if there is any mistake.
    pub fn read<T>(
        &self,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> (Option<T>, Vec<Mistake>) {
        let mut report = Report {
            file: self.file.clone(),
            mistakes: vec![],
        };
        let position = self.root.position;
        let resolved = match &self.root.value {
            Value::Mapping(entries) => Fields::read(entries, position, &mut report, resolve),
            other => {
                report.mistake(
                    position,
                    format!("expected a mapping of keys, found {other}"),
                );
                None
            }
        };
        (resolved, report.mistakes)
    }

    /// The whole document as a value of any shape; see [`Free`].
    pub fn free(&self) -> Result<Free, Mistakes> {
        let mut report = Report {
            file: self.file.clone(),
            mistakes: vec![],
        };
        let mut refuse = |node: &Node, message: &str| report.mistake(node.position, message);
        let value = Free::read(&self.root, &mut refuse);
        match report.mistakes.is_empty() {
            true => Ok(value),
            false => Err(Mistakes::sorted(report.mistakes)),
        }
    }

    /// Line and column (from 1) of where it begins.
    pub fn position(&self) -> (usize, usize) {
        (self.root.position.line, self.root.position.column)
    }
}

#[derive(Debug)]
struct Report {
    file: Arc<str>,
    mistakes: Vec<Mistake>,
}

impl Report {
    fn mistake(&mut self, position: Position, message: impl fmt::Display) {
        self.mistakes
            .push(Mistake::new(&self.file, position, message));
    }
}

/// A mapping that is being read field by field. A key that nobody asked for is a mistake ("did you mean").
/// Every reader returns `None` after recording a mistake, so that reading goes on and all are reported.
#[derive(Debug)]
pub struct Fields<'a> {
    entries: &'a [Entry],
    position: Position,
    asked: Vec<&'static str>,
    ignore_rest: bool,
    report: &'a mut Report,
}

impl<'a> Fields<'a> {
    /// A string (or any scalar as written) parsed by `parse`, absent: `None` without a mistake.
    /// `parse` says what is wrong with the value and what to write.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.value(key)?;
        let text = self.scalar(key, node)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(message) => self.reject(key, node.position, message),
        }
    }

    /// As `optional`, but absence is a mistake.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.require(key)?;
        self.optional(key, parse)
    }

    /// `true` or `false`, unquoted.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.value(key)?;
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            Value::Scalar { text, plain } => {
                let quoted = if *plain { "" } else { "the string " };
                let message = format!("expected true or false, found {quoted}`{text}`");
                self.reject(key, node.position, message)
            }
            _ => self.wrong_kind(key, node, "true or false"),
        }
    }

    /// An unsigned number in `range`, in decimal.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.value(key)?;
        let text = self.scalar(key, node)?;
        let decimal = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        if !decimal {
            let message = format!("expected a whole number, found `{text}`");
            return self.reject(key, node.position, message);
        }
        match text.parse() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = range.into_inner();
                let message = format!("{text} is out of range: from {least} to {most}");
                self.reject(key, node.position, message)
            }
        }
    }

    /// A duration: `90s`, `5m`, `1h`, `14d`, `250ms`, `1h30m`.
    pub fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.optional(key, |text| {
            let duration = parse_duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            Err(format!(
                "{text} is out of range: from {} to {}",
                format_duration(*range.start()),
                format_duration(*range.end())
            ))
        })
    }

    /// A nested mapping.
    pub fn mapping<T>(
        &mut self,
        key: &'static str,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = self.value(key)?;
        match &node.value {
            Value::Mapping(entries) => Fields::read(entries, node.position, self.report, resolve),
            _ => self.wrong_kind(key, node, "a mapping"),
        }
    }

    /// A nested mapping whose absence is a mistake.
    pub fn required_mapping<T>(
        &mut self,
        key: &'static str,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        self.require(key)?;
        self.mapping(key, resolve)
    }

    /// A sequence of scalars; absent: empty. Wrong ones are recorded and left out.
    pub fn scalars<T>(
        &mut self,
        key: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = vec![];
        for node in self.items(key) {
            let Some(text) = self.scalar(key, node) else {
                continue;
            };
            match parse(text) {
                Ok(value) => values.push(value),
                Err(message) => _ = self.reject::<T>(key, node.position, message),
            }
        }
        values
    }

    /// A sequence of scalars as written; absent: empty. Wrong ones are recorded and
    /// stand empty, so that each keeps its place.
    pub fn texts(&mut self, key: &'static str) -> Vec<String> {
        self.items(key)
            .iter()
            .map(|node| self.scalar(key, node).unwrap_or_default().to_owned())
            .collect()
    }

    /// A sequence of mappings; absent: empty. Wrong ones are recorded and stand as
    /// their default, so that each keeps its place.
    pub fn each<T: Default>(
        &mut self,
        key: &'static str,
        mut resolve: impl FnMut(&mut Fields<'_>) -> Option<T>,
    ) -> Vec<T> {
        let mut values = vec![];
        for node in self.items(key) {
            let value = match &node.value {
                Value::Mapping(entries) => {
                    Fields::read(entries, node.position, self.report, &mut resolve)
                }
                _ => self.wrong_kind(key, node, "a mapping"),
            };
            values.push(value.unwrap_or_default());
        }
        values
    }

    /// A value of any shape; see [`Free`].
    pub fn free(&mut self, key: &'static str) -> Option<Free> {
        let node = self.value(key)?;
        let report = &mut *self.report;
        let mut refuse = |node: &Node, message: &str| {
            report.mistake(node.position, format!("`{key}`: {message}"));
        };
        Some(Free::read(node, &mut refuse))
    }

    /// A sequence of mappings; absent: empty. Those that `resolve` refuses are left out.
    pub fn mappings<T>(
        &mut self,
        key: &'static str,
        mut resolve: impl FnMut(&mut Fields<'_>) -> Option<T>,
    ) -> Vec<T> {
        let mut values = vec![];
        for node in self.items(key) {
            let value = match &node.value {
                Value::Mapping(entries) => {
                    Fields::read(entries, node.position, self.report, &mut resolve)
                }
                _ => self.wrong_kind(key, node, "a mapping"),
            };
            values.extend(value);
        }
        values
    }

    /// A mapping with free keys (labels) to scalars, in order; absent: empty.
    pub fn string_map(&mut self, key: &'static str) -> Vec<(String, String)> {
        let mut pairs = vec![];
        for entry in self.free_entries(key) {
            if let Some(text) = self.scalar(&entry.key, &entry.value) {
                pairs.push((entry.key.clone(), text.to_owned()));
            }
        }
        pairs
    }

    /// A mapping with free keys to a scalar or a sequence of scalars, in order; absent: empty.
    pub fn string_list_map(&mut self, key: &'static str) -> Vec<(String, Vec<String>)> {
        let mut pairs = vec![];
        for entry in self.free_entries(key) {
            let nodes = match &entry.value.value {
                Value::Sequence(items) => items.as_slice(),
                _ => std::slice::from_ref(&entry.value),
            };
            let texts = nodes
                .iter()
                .filter_map(|node| self.scalar(&entry.key, node).map(str::to_owned))
                .collect();
            pairs.push((entry.key.clone(), texts));
        }
        pairs
    }

    /// Whether the key is present (does not count as reading it).
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// How many items the sequence under `key` has, wrong ones too; 0 if it is absent or no
    /// sequence (does not count as reading it).
    pub fn count(&self, key: &str) -> usize {
        match self.entry(key).map(|entry| &entry.value.value) {
            Some(Value::Sequence(items)) => items.len(),
            _ => 0,
        }
    }

    /// Records a mistake at the value of `key` (or at the mapping, if absent).
    /// The message stands as it is given.
    pub fn mistake(&mut self, key: &str, message: impl fmt::Display) {
        let position = self
            .entry(key)
            .map_or(self.position, |entry| entry.value.position);
        self.report.mistake(position, message);
    }

    /// Records a mistake at a line and column that [`Fields::position`] or [`Fields::start`] told.
    pub fn mistake_at(&mut self, (line, column): (usize, usize), message: impl fmt::Display) {
        self.report.mistake(Position { line, column }, message);
    }

    /// Line and column (from 1) of the value of `key`.
    pub fn position(&self, key: &str) -> Option<(usize, usize)> {
        let position = self.entry(key)?.value.position;
        Some((position.line, position.column))
    }

    /// Line and column (from 1) of where the mapping begins.
    pub fn start(&self) -> (usize, usize) {
        (self.position.line, self.position.column)
    }

    /// Reports no unread key of this mapping: what the known ones would be hangs on
    /// a value that is itself mistaken (an unknown `type`).
    pub fn ignore_rest(&mut self) {
        self.ignore_rest = true;
    }

    fn read<T>(
        entries: &[Entry],
        position: Position,
        report: &mut Report,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let before = report.mistakes.len();
        let mut fields = Fields {
            entries,
            position,
            asked: vec![],
            ignore_rest: false,
            report,
        };
        let resolved = resolve(&mut fields);
        fields.report_unread();
        if resolved.is_none() && report.mistakes.len() == before {
            report.mistake(position, "this mapping is not complete");
        }
        resolved
    }

    fn report_unread(&mut self) {
        if self.ignore_rest {
            return;
        }
        for entry in self.entries {
            if self.asked.contains(&entry.key.as_str()) {
                continue;
            }
            let absent = self.asked.iter().copied().filter(|asked| !self.has(asked));
            let nearest = did_you_mean(&entry.key, absent);
            let message = match nearest {
                Some(asked) => format!("unknown key `{}`: did you mean `{asked}`?", entry.key),
                None => {
                    let mut known: Vec<_> = self.asked.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!(
                        "unknown key `{}`: known are {}",
                        entry.key,
                        known.join(", ")
                    )
                }
            };
            self.report.mistake(entry.key_position, message);
        }
    }

    /// The value of `key`, which counts as read. One without a value is a mistake.
    fn value(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        let entry = self.entry(key)?;
        if matches!(entry.value.value, Value::Null) {
            let message = "has no value: give it one or remove the key";
            return self.reject(key, entry.key_position, message);
        }
        Some(&entry.value)
    }

    fn require(&mut self, key: &'static str) -> Option<()> {
        if self.has(key) {
            return Some(());
        }
        self.asked.push(key);
        let position = self.position;
        self.report
            .mistake(position, format!("missing key `{key}`"));
        None
    }

    fn scalar<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } => Some(text),
            _ => self.wrong_kind(key, node, "a single value"),
        }
    }

    fn items(&mut self, key: &'static str) -> &'a [Node] {
        let Some(node) = self.value(key) else {
            return &[];
        };
        match &node.value {
            Value::Sequence(items) => items,
            _ => self.wrong_kind(key, node, "a sequence").unwrap_or(&[]),
        }
    }

    fn free_entries(&mut self, key: &'static str) -> &'a [Entry] {
        let Some(node) = self.value(key) else {
            return &[];
        };
        match &node.value {
            Value::Mapping(entries) => entries,
            _ => self.wrong_kind(key, node, "a mapping").unwrap_or(&[]),
        }
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn wrong_kind<T>(&mut self, key: &str, node: &Node, expected: &str) -> Option<T> {
        let message = format!("expected {expected}, found {}", node.value);
        self.reject(key, node.position, message)
    }

    fn reject<T>(
        &mut self,
        key: &str,
        position: Position,
        message: impl fmt::Display,
    ) -> Option<T> {
        self.report.mistake(position, format!("`{key}`: {message}"));
        None
    }
}

#[cfg(test)]
mod tests;
