//! The attribute tree: what a rule or a template may ask of a caller.
//!
//! One typed list of leaves is the source of all else: expressions are checked
//! against it when they are written, values are read into it, `issuer
//! attributes` and the reference manual print it. An attribute is *verified*
//! when the issuer itself checked it (`join.*` from the proof of joining,
//! `user.*` from its own records) and *asserted* when the agent says so
//! (`workload.*`, from attestation on the agent's host).
//!
//! Source of the leaves: teleport-facts 1.5.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use serde::Serialize;

mod tree;

/// The shape of an attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// Text. The empty text counts as unset.
    String,
    /// A whole number of 64 bits.
    Int,
    /// `true` or `false`.
    Bool,
    /// A list of texts.
    List,
    /// Texts by name.
    Map,
    /// Lists of texts by name.
    MultiMap,
}

impl Type {
    /// Whether it is one value, not several.
    pub fn is_scalar(self) -> bool {
        matches!(self, Self::String | Self::Int | Self::Bool)
    }

    /// The name with its article: `an int`.
    pub(crate) fn with_article(self) -> String {
        let article = if self == Self::Int { "an" } else { "a" };
        format!("{article} {self}")
    }
}

/// The name used in messages and documents.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::List => "list of strings",
            Self::Map => "map of strings",
            Self::MultiMap => "map of lists of strings",
        })
    }
}

/// Who vouches for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The issuer checked it.
    Verified,
    /// The agent says so.
    Asserted,
}

/// `verified` or `asserted`.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::Asserted => "asserted",
        })
    }
}

/// When an attribute has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// For every caller.
    Always,
    /// Whenever its group has one: `join.github.sub` for all who joined by `github`.
    WithGroup,
    /// Even then not always: a rule must ask `has(…)` first.
    Optional,
}

/// `always`, `with its group` or `optional`.
impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::WithGroup => "with its group",
            Self::Optional => "optional",
        })
    }
}

/// One leaf of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Attribute {
    /// Its full name: `join.github.repository`.
    pub path: &'static str,
    /// The shape of its value.
    pub r#type: Type,
    /// Who vouches for it.
    pub trust: Trust,
    /// When it has a value.
    pub presence: Presence,
    /// What it says, in a line.
    pub doc: &'static str,
}

impl Attribute {
    /// The group that holds it: `join.github` of `join.github.repository`.
    pub fn group(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(group, _)| group)
    }
}

/// Every attribute, in the order of the manual.
pub fn attributes() -> &'static [Attribute] {
    tree::ATTRIBUTES
}

/// The attribute of this full name.
pub fn attribute(path: &str) -> Option<&'static Attribute> {
    index_of(path).map(by_index)
}

/// Whether `path` is an inner node of the tree, such as `join.github`.
pub fn is_group(path: &str) -> bool {
    INDEX.groups.contains_key(path)
}

/// The name closest to one that does not exist, if any is close.
pub fn suggestion(unknown: &str) -> Option<&'static str> {
    let names = || {
        attributes()
            .iter()
            .map(|attribute| attribute.path)
            .chain(INDEX.group_paths.iter().copied())
    };
    // The right leaf at the wrong depth: `join.kubernetes.namespace`.
    if let Some((_, last)) = unknown.rsplit_once('.') {
        let mut top = unknown.splitn(3, '.');
        let top = (top.next(), top.next());
        let mut same = names().filter(|name| {
            let mut other = name.splitn(3, '.');
            (other.next(), other.next()) == top
                && name.rsplit_once('.').is_some_and(|(_, l)| l == last)
        });
        if let (Some(name), None) = (same.next(), same.next()) {
            return Some(name);
        }
    }
    nearest(unknown, names())
}

/// The name within a few letters of `unknown`.
pub(crate) fn nearest<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = unknown.chars().count();
    let far = (length / 5).clamp(1, 4) + 1;
    names
        // As many letters as the lengths differ by are changes at the least.
        .filter(|name| name.chars().count().abs_diff(length) <= far)
        .map(|name| (strsim::osa_distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

pub(crate) fn index_of(path: &str) -> Option<u16> {
    INDEX.leaves.get(path).copied()
}

pub(crate) fn by_index(index: u16) -> &'static Attribute {
    &tree::ATTRIBUTES[usize::from(index)]
}

/// The number of the group of this name.
pub(crate) fn group_of(path: &str) -> Option<u16> {
    INDEX.groups.get(path).copied()
}

/// The name of a group and the range of its leaves, which stand together.
pub(crate) fn group_by_index(index: u16) -> (&'static str, std::ops::Range<u16>) {
    let path = INDEX.group_paths[usize::from(index)];
    (path, INDEX.members[usize::from(index)].clone())
}

/// The names right below a group: `sub`, `actor`, ….
pub(crate) fn children(group: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = attributes()
        .iter()
        .filter_map(|attribute| {
            let rest = attribute.path.strip_prefix(group)?.strip_prefix('.')?;
            rest.split('.').next()
        })
        .collect();
    names.dedup();
    names
}

struct Index {
    leaves: HashMap<&'static str, u16>,
    groups: HashMap<&'static str, u16>,
    group_paths: Vec<&'static str>,
    members: Vec<std::ops::Range<u16>>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index {
        leaves: HashMap::new(),
        groups: HashMap::new(),
        group_paths: Vec::new(),
        members: Vec::new(),
    };
    for (attribute, number) in tree::ATTRIBUTES.iter().zip(0_u16..) {
        index.leaves.insert(attribute.path, number);
        for (end, _) in attribute.path.match_indices('.') {
            let group = &attribute.path[..end];
            let known = index.group_paths.len() as u16;
            let place = *index.groups.entry(group).or_insert(known);
            if place == known {
                index.group_paths.push(group);
                index.members.push(number..number + 1);
            }
            index.members[usize::from(place)].end = number + 1;
        }
    }
    index
});

#[cfg(test)]
mod tests;
