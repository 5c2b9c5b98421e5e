//! Strict YAML documents, read in two stages: text into a tree of positioned
//! nodes, then the tree into typed values, collecting *every* mistake with its
//! file, line and column.
use std::{fmt, time::Duration};

/// One YAML document as a tree of positioned nodes.
pub struct Document {
    _private: (),
}
impl Document {
    /// Parses every document of `text` (`---` separates them). `file` is what errors call it.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Document>, Mistakes> {
        let _ = (file, text);
        unimplemented!()
    }
    /// Resolves the whole document: `resolve` reads fields from the root mapping; any mistake recorded on the way, or
    /// key left unread, fails the whole (all are reported).
    pub fn resolve<T>(
        &self,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Result<T, Mistakes> {
        let _ = resolve;
        unimplemented!()
    }
}

/// A mapping that is being read field by field. A key that nobody asked for is a mistake ("did you mean").
/// Every reader returns `None` after recording a mistake, so that reading goes on and all are reported.
pub struct Fields<'a> {
    _p: std::marker::PhantomData<&'a ()>,
}
impl<'a> Fields<'a> {
    /// A string (or any scalar as written) parsed by `parse`, absent: `None` without a mistake.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let _ = (key, parse);
        unimplemented!()
    }
    /// As `optional`, but absence is a mistake.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let _ = (key, parse);
        unimplemented!()
    }
    /// `true` or `false` (YAML 1.2 core only).
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let _ = key;
        unimplemented!()
    }
    /// An unsigned number in `range`.
    pub fn integer(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let _ = (key, range);
        unimplemented!()
    }
    /// A duration: `90s`, `5m`, `1h`, `14d`, `250ms`, `1h30m`.
    pub fn duration(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let _ = (key, range);
        unimplemented!()
    }
    /// A nested mapping.
    pub fn mapping<T>(
        &mut self,
        key: &'static str,
        resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let _ = (key, resolve);
        unimplemented!()
    }
    /// A sequence of scalars; absent: empty.
    pub fn scalars<T>(
        &mut self,
        key: &'static str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let _ = (key, parse);
        unimplemented!()
    }
    /// A sequence of mappings; absent: empty.
    pub fn mappings<T>(
        &mut self,
        key: &'static str,
        resolve: impl FnMut(&mut Fields<'_>) -> Option<T>,
    ) -> Vec<T> {
        let _ = (key, resolve);
        unimplemented!()
    }
    /// A mapping with free keys (labels) to scalars; absent: empty.
    pub fn string_map(&mut self, key: &'static str) -> Vec<(String, String)> {
        let _ = key;
        unimplemented!()
    }
    /// A mapping with free keys to a scalar or a sequence of scalars; absent: empty.
    pub fn string_list_map(&mut self, key: &'static str) -> Vec<(String, Vec<String>)> {
        let _ = key;
        unimplemented!()
    }
    /// Whether the key is present (does not count as reading it).
    pub fn has(&self, key: &str) -> bool {
        let _ = key;
        unimplemented!()
    }
    /// Records a mistake at the value of `key` (or at the mapping, if absent).
    pub fn mistake(&mut self, key: &str, message: impl fmt::Display) {
        let _ = key;
        let _ = message.to_string();
        unimplemented!()
    }
    /// Line and column (from 1) of the value of `key`.
    pub fn position(&self, key: &str) -> Option<(usize, usize)> {
        let _ = key;
        unimplemented!()
    }
}

/// Every mistake of a file, in order of position. `Display`: one line each, `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stub")]
pub struct Mistakes {
    _private: (),
}
impl Mistakes {
    /// How many.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    /// Whether there is none (never, when returned as an error).
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
}
/// Parses a duration as [`Fields::duration`] does.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let _ = text;
    unimplemented!()
}
