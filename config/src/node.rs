//! First stage: text into a tree of positioned nodes.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::Mistake;

/// Deepest nesting. The tree is built and dropped by recursion.
const MAX_DEPTH: usize = 64;

/// Most nodes of a file, counting a node again for each copy of it: for its anchor, and
/// for each alias.
const MAX_NODES: usize = 200_000;

/// So many bytes of text weigh as much as a node.
const BYTES_PER_NODE: usize = 256;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// No value, `~` or `null`.
    Null,
    /// Text as written, after escapes; `plain` if it was not quoted.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// `a string`, `a sequence` …: names the kind, never the content, which may be secret.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a single value",
            Self::Sequence(_) => "a sequence",
            Self::Mapping(_) => "a mapping",
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_position: Position,
    pub(crate) value: Node,
}

/// Parses every document that is not empty. Text that is not YAML gives none.
pub(crate) fn parse(file: &Arc<str>, text: &str) -> (Vec<Node>, Vec<Mistake>) {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder::new(file.clone(), text, options);
    // Why it stopped is among the mistakes.
    let documents = builder.documents().unwrap_or_default();
    (documents, builder.mistakes)
}

/// Reading cannot go on; the mistake is recorded.
struct Stop;

struct Builder<'t> {
    file: Arc<str>,
    parser: Parser<'t, StrInput<'t>>,
    last: Position,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    /// So many of them are the copies that anchors keep.
    copied: usize,
    mistakes: Vec<Mistake>,
}

/// A finished node that aliases may name, and how many nodes it is.
struct Anchored {
    node: Node,
    size: usize,
}

impl<'t> Builder<'t> {
    fn new(file: Arc<str>, text: &'t str, mut options: Options) -> Self {
        options.set_emit_comments(false);
        Self {
            file,
            parser: Parser::new_from_str_with_options(text, options),
            last: Position { line: 1, column: 1 },
            anchors: HashMap::new(),
            nodes: 0,
            copied: 0,
            mistakes: vec![],
        }
    }

    fn documents(&mut self) -> Result<Vec<Node>, Stop> {
        let mut documents = vec![];
        while let Some((event, _)) = self.next()? {
            if let Event::DocumentStart(..) = event {
                self.anchors.clear();
                let (event, position) = self.expect_next()?;
                let root = self.node(event, position, 0)?;
                if !matches!(root.value, Value::Null) {
                    documents.push(root);
                }
            }
        }
        Ok(documents)
    }

    /// The node that `event` begins.
    fn node(&mut self, event: Event<'t>, position: Position, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return Err(self.stop(position, format!("nested more than {MAX_DEPTH} deep")));
        }
        let size_before = self.nodes - self.copied;
        self.count(1, position)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let string_tag = self.check_tag(tag.as_deref(), position);
                let plain = style == ScalarStyle::Plain && !string_tag;
                self.count(text.len() / BYTES_PER_NODE, position)?;
                let value = if plain && is_null(&text) {
                    Value::Null
                } else {
                    let text = text.into_owned();
                    Value::Scalar { text, plain }
                };
                (anchor, value)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), position);
                (anchor, Value::Sequence(self.sequence(depth)?))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), position);
                (anchor, Value::Mapping(self.mapping(depth)?))
            }
            Event::Alias(anchor) => return self.alias(anchor, position),
            other => {
                return Err(self.stop(position, format!("expected a value, found {other:?}")));
            }
        };
        let node = Node { position, value };
        if anchor != 0 {
            let size = self.nodes - self.copied - size_before;
            self.count(size, position)?;
            self.copied += size;
            let anchored = Anchored {
                node: node.clone(),
                size,
            };
            self.anchors.insert(anchor, anchored);
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = vec![];
        loop {
            match self.expect_next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, position) => items.push(self.node(event, position, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = vec![];
        let mut seen: HashMap<String, Position> = HashMap::new();
        let mut twice = HashSet::new();
        loop {
            let (key, key_position) = match self.expect_next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (event, position) => (self.node(event, position, depth + 1)?, position),
            };
            let (event, position) = self.expect_next()?;
            let value = self.node(event, position, depth + 1)?;
            let key = match key.value {
                Value::Scalar { text, plain: true } if text == "<<" => {
                    self.mistake(
                        key_position,
                        "merge keys (`<<`) are not supported: write the keys out",
                    );
                    continue;
                }
                Value::Scalar { text, .. } => text,
                other => {
                    self.mistake(
                        key_position,
                        format!("a key must be a single value, not {other}"),
                    );
                    continue;
                }
            };
            if let Some(first) = seen.get(&key) {
                if twice.insert((key_position.line, key_position.column)) {
                    let message =
                        format!("key `{key}` stands twice (first on line {})", first.line);
                    self.mistake(key_position, message);
                }
                continue;
            }
            seen.insert(key.clone(), key_position);
            entries.push(Entry {
                key,
                key_position,
                value,
            });
        }
    }

    /// A copy of the node that an alias names: mistakes in it point to where it is written.
    fn alias(&mut self, anchor: usize, position: Position) -> Result<Node, Stop> {
        let Some(Anchored { node, size }) = self.anchors.get(&anchor) else {
            return Err(self.stop(position, "an alias stands inside the value that it names"));
        };
        let (node, size) = (node.clone(), *size);
        self.count(size, position)?;
        Ok(node)
    }

    fn count(&mut self, more: usize, position: Position) -> Result<(), Stop> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            let message = format!(
                "too large: more than {MAX_NODES} values, counting those behind anchors and aliases again"
            );
            return Err(self.stop(position, message));
        }
        Ok(())
    }

    /// Whether the tag says that a scalar is a string whatever it looks like.
    fn check_tag(&mut self, tag: Option<&Tag>, position: Position) -> bool {
        let Some(tag) = tag else { return false };
        if tag.is_yaml_core_schema_tag("str") || tag.parts() == ("", "!") {
            return true;
        }
        let message = format!(
            "tag `{}` is not supported: write the value without it",
            tag.original()
        );
        self.mistake(position, message);
        false
    }

    fn expect_next(&mut self) -> Result<(Event<'t>, Position), Stop> {
        match self.next()? {
            Some(next) => Ok(next),
            None => Err(self.stop(self.last, "the text ends in the middle of a value")),
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Position)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.last = Position::from(span);
                Ok(Some((event, self.last)))
            }
            Some(Err(error)) => {
                let position = Position::from(&error);
                let what = error.info().lines().next().unwrap_or_default().to_owned();
                Err(self.stop(position, format!("not YAML: {what}")))
            }
        }
    }

    fn stop(&mut self, position: Position, message: impl fmt::Display) -> Stop {
        self.mistake(position, message);
        Stop
    }

    fn mistake(&mut self, position: Position, message: impl fmt::Display) {
        self.mistakes
            .push(Mistake::new(&self.file, position, message));
    }
}

impl From<Span> for Position {
    fn from(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }
}

impl From<&ScanError> for Position {
    fn from(error: &ScanError) -> Self {
        Self {
            line: error.marker().line().max(1),
            column: error.marker().col() + 1,
        }
    }
}

/// YAML 1.2 core schema, 10.3.2.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests;
