//! What is known of one caller: a tree of values that obeys the schema.
//!
//! A value is here only if the schema has its name and its shape, so an
//! expression that was checked against the schema cannot meet a wrong one. The
//! empty text is the same as no value: a rule or a template that relied on it
//! would identify nobody.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

use crate::schema::{self, Attribute, Type};

/// Longest text of a value, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most entries of a list or map, nested lists counted together.
pub const MAX_ENTRIES: usize = 1024;
/// For so many mistakes the name is looked for that was probably meant.
const MAX_SUGGESTED: usize = 16;
/// No more of an unknown name is repeated, in bytes.
const MAX_TOLD: usize = 128;
const UNKNOWN: &str = "is not an attribute";

/// The value of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text; empty is the same as unset.
    String(String),
    /// A whole number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// A list of texts.
    List(Vec<String>),
    /// Texts by name.
    Map(BTreeMap<String, String>),
    /// Lists of texts by name.
    MultiMap(BTreeMap<String, Vec<String>>),
}

impl Value {
    /// Its shape.
    pub fn r#type(&self) -> Type {
        match self {
            Self::String(_) => Type::String,
            Self::Int(_) => Type::Int,
            Self::Bool(_) => Type::Bool,
            Self::List(_) => Type::List,
            Self::Map(_) => Type::Map,
            Self::MultiMap(_) => Type::MultiMap,
        }
    }

    /// As JSON: text, number, boolean, array or object.
    pub fn to_json(&self) -> Json {
        match self {
            Self::String(text) => text.as_str().into(),
            Self::Int(number) => (*number).into(),
            Self::Bool(flag) => (*flag).into(),
            Self::List(list) => list.iter().map(String::as_str).collect(),
            Self::Map(map) => map
                .iter()
                .map(|(key, value)| (key.clone(), Json::from(value.as_str())))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Self::MultiMap(map) => map
                .iter()
                .map(|(key, list)| (key.clone(), list.iter().map(String::as_str).collect()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    fn from_json(json: &Json, r#type: Type) -> Result<Self, String> {
        let wrong = || format!("must be {}, is {}", r#type.with_article(), describe(json));
        Ok(match r#type {
            Type::String => Self::String(json.as_str().ok_or_else(wrong)?.to_owned()),
            Type::Int => Self::Int(json.as_i64().ok_or_else(wrong)?),
            Type::Bool => Self::Bool(json.as_bool().ok_or_else(wrong)?),
            Type::List => Self::List(texts(json).ok_or_else(wrong)?),
            Type::Map => Self::Map(
                json.as_object()
                    .ok_or_else(wrong)?
                    .iter()
                    .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                    .collect::<Option<_>>()
                    .ok_or_else(|| format!("must be a {type}, but not every entry is text"))?,
            ),
            Type::MultiMap => Self::MultiMap(
                json.as_object()
                    .ok_or_else(wrong)?
                    .iter()
                    .map(|(key, value)| Some((key.clone(), texts(value)?)))
                    .collect::<Option<_>>()
                    .ok_or_else(|| {
                        format!("must be a {type}, but not every entry is a list of texts")
                    })?,
            ),
        })
    }

    fn is_unset(&self) -> bool {
        matches!(self, Self::String(text) if text.is_empty())
    }

    fn check_size(&self) -> Result<(), String> {
        let (longest, entries) = match self {
            Self::Int(_) | Self::Bool(_) => return Ok(()),
            Self::String(text) => (text.len(), 1),
            Self::List(list) => (longest(list), list.len()),
            Self::Map(map) => (longest(map.keys()).max(longest(map.values())), map.len()),
            Self::MultiMap(map) => (
                longest(map.keys()).max(longest(map.values().flatten())),
                map.values().map(|list| list.len() + 1).sum(),
            ),
        };
        if longest > MAX_TEXT {
            return Err(format!(
                "has a text of {longest} bytes; at most {MAX_TEXT} are allowed"
            ));
        }
        if entries > MAX_ENTRIES {
            return Err(format!(
                "has {entries} entries; at most {MAX_ENTRIES} are allowed"
            ));
        }
        Ok(())
    }
}

fn texts(json: &Json) -> Option<Vec<String>> {
    json.as_array()?
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn longest<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(String::len).max().unwrap_or(0)
}

fn describe(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Bool(flag) => format!("the boolean {flag}"),
        Json::Number(number) => format!("the number {number}"),
        Json::String(_) => "a string".to_owned(),
        Json::Array(_) => "a list that is not of texts only".to_owned(),
        Json::Object(_) => "a map".to_owned(),
    }
}

/// The attributes of one caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Ordered by the attribute's number in the schema.
    values: Vec<(u16, Value)>,
    /// What became of signature policies, by name; why not, of those that are not satisfied.
    signature_policies: BTreeMap<Box<str>, Result<(), Box<str>>>,
}

impl Attributes {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the nested form, `{"join": {"github": {"repository": "org/app"}}}`.
    /// `null` and empty text are unset. Every mistake is reported.
    pub fn from_json(json: &Json) -> Result<Self, AttributeErrors> {
        let mut errors = Vec::new();
        let attributes = Self::collect(json, &mut |error| errors.push(error));
        if errors.is_empty() {
            return Ok(attributes);
        }
        for error in errors.iter_mut().take(MAX_SUGGESTED) {
            error.suggest();
        }
        Err(AttributeErrors(errors))
    }

    /// As [`Self::from_json`], without what cannot be read: for what comes from who knows
    /// of more attributes, or of others. It costs no more than to read the tree, whatever
    /// is in it: a stranger may have sent it.
    pub fn from_json_lossy(json: &Json) -> (Self, Option<LeftOut>) {
        let mut left_out = None::<LeftOut>;
        let attributes = Self::collect(json, &mut |first| match &mut left_out {
            Some(left_out) => left_out.count += 1,
            None => left_out = Some(LeftOut { count: 1, first }),
        });
        (attributes, left_out)
    }

    fn collect(json: &Json, refuse: &mut dyn FnMut(AttributeError)) -> Self {
        let mut attributes = Self::new();
        match json.as_object() {
            Some(top) => {
                for (name, value) in top {
                    attributes.read(name, value, refuse);
                }
            }
            None => refuse(AttributeError {
                path: String::new(),
                message: format!("attributes are a map by name, this is {}", describe(json)),
                suggestion: None,
            }),
        }
        attributes
    }

    fn read(&mut self, path: &str, json: &Json, refuse: &mut dyn FnMut(AttributeError)) {
        let result = match schema::index_of(path) {
            _ if json.is_null()
                && (schema::is_group(path) || schema::attribute(path).is_some()) =>
            {
                return;
            }
            Some(index) => Value::from_json(json, schema::by_index(index).r#type)
                .and_then(|value| self.put(index, value))
                .map_err(|message| AttributeError {
                    path: path.to_owned(),
                    message,
                    suggestion: None,
                }),
            None if schema::is_group(path) => match json.as_object() {
                Some(members) => {
                    for (name, value) in members {
                        self.read(&format!("{path}.{name}"), value, refuse);
                    }
                    return;
                }
                None => Err(AttributeError {
                    path: path.to_owned(),
                    message: format!("is a group of attributes, not {}", describe(json)),
                    suggestion: None,
                }),
            },
            None => Err(AttributeError::unknown(path)),
        };
        if let Err(error) = result {
            refuse(error);
        }
    }

    /// The nested form that [`Self::from_json`] reads.
    pub fn to_json(&self) -> Json {
        let mut top = serde_json::Map::new();
        for (attribute, value) in self.iter() {
            let mut place = &mut top;
            let mut names = attribute.path.split('.').peekable();
            while let Some(name) = names.next() {
                if names.peek().is_none() {
                    place.insert(name.to_owned(), value.to_json());
                    break;
                }
                let inner = place
                    .entry(name)
                    .or_insert_with(|| Json::Object(serde_json::Map::new()));
                let Json::Object(inner) = inner else { break };
                place = inner;
            }
        }
        Json::Object(top)
    }

    /// Sets one attribute by its full name. Empty text removes it.
    pub fn set(&mut self, path: &str, value: Value) -> Result<(), AttributeError> {
        let index = schema::index_of(path).ok_or_else(|| {
            let mut error = AttributeError::unknown(path);
            error.suggest();
            error
        })?;
        let error = |message| AttributeError {
            path: path.to_owned(),
            message,
            suggestion: None,
        };
        let expected = schema::by_index(index).r#type;
        if value.r#type() != expected {
            return Err(error(format!(
                "must be a {expected}, is a {}",
                value.r#type()
            )));
        }
        self.put(index, value).map_err(error)
    }

    fn put(&mut self, index: u16, value: Value) -> Result<(), String> {
        value.check_size()?;
        match self.place(index) {
            Ok(place) if value.is_unset() => drop(self.values.remove(place)),
            Ok(place) => self.values[place].1 = value,
            Err(_) if value.is_unset() => {}
            Err(place) => self.values.insert(place, (index, value)),
        }
        Ok(())
    }

    /// The value of an attribute, by its full name.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.by_index(schema::index_of(path)?)
    }

    /// Says what became of a `sigstore_policy` for this caller: that the signatures of its
    /// image satisfy it, or why they do not.
    pub fn set_signature_policy(&mut self, name: &str, verdict: Result<(), String>) {
        self.signature_policies
            .insert(name.into(), verdict.map_err(String::into_boxed_str));
    }

    /// Whether a `sigstore_policy` is satisfied; why not. One that nobody looked at is not.
    pub fn signature_policy(&self, name: &str) -> Result<(), &str> {
        match self.signature_policies.get(name) {
            Some(verdict) => verdict.as_ref().copied().map_err(AsRef::as_ref),
            None => Err("nobody looked at this policy"),
        }
    }

    /// Every `sigstore_policy` that was looked at, by name.
    pub fn signature_policies(&self) -> impl Iterator<Item = (&str, Result<(), &str>)> {
        self.signature_policies.iter().map(|(name, verdict)| {
            let verdict = verdict.as_ref().copied().map_err(AsRef::as_ref);
            (&**name, verdict)
        })
    }

    /// Takes over every value of `other`; where both have one, `other`'s stands.
    pub fn merge(&mut self, other: Self) {
        self.signature_policies.extend(other.signature_policies);
        for (index, value) in other.values {
            match self.place(index) {
                Ok(place) => self.values[place].1 = value,
                Err(place) => self.values.insert(place, (index, value)),
            }
        }
    }

    /// Every attribute that has a value, in the order of the manual.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Attribute, &Value)> {
        self.values
            .iter()
            .map(|(index, value)| (schema::by_index(*index), value))
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn by_index(&self, index: u16) -> Option<&Value> {
        self.place(index).ok().map(|place| &self.values[place].1)
    }

    /// Whether any attribute of a group has a value.
    pub(crate) fn has_group(&self, group: u16) -> bool {
        let (_, members) = schema::group_by_index(group);
        let first = self
            .values
            .partition_point(|(index, _)| *index < members.start);
        self.values
            .get(first)
            .is_some_and(|(index, _)| members.contains(index))
    }

    fn place(&self, index: u16) -> Result<usize, usize> {
        self.values
            .binary_search_by_key(&index, |(index, _)| *index)
    }
}

/// One attribute that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct AttributeError {
    /// Its full name as given; empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// The name that was probably meant.
    pub suggestion: Option<String>,
}

impl AttributeError {
    /// Cut to what a person reads: whoever chose the name may have meant harm.
    fn unknown(path: &str) -> Self {
        Self {
            path: path[..path.floor_char_boundary(MAX_TOLD)].to_owned(),
            message: UNKNOWN.to_owned(),
            suggestion: None,
        }
    }

    /// Looks for the name that was probably meant, if this one is unknown.
    fn suggest(&mut self) {
        if self.message == UNKNOWN {
            self.suggestion = schema::suggestion(&self.path).map(str::to_owned);
        }
    }
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)?;
        } else {
            write!(f, "attribute `{}` {}", self.path, self.message)?;
        }
        match &self.suggestion {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// What of a tree could not be read, and was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// How many values.
    pub count: usize,
    /// The first of them.
    pub first: AttributeError,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            count => write!(f, "{}; and {} more", self.first, count - 1),
        }
    }
}

/// Every attribute that could not be read; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct AttributeErrors(pub Vec<AttributeError>);

impl fmt::Display for AttributeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
