//! Values while they are worked with: borrowed from the caller's attributes and
//! from the expression as far as they can be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::attributes::Value;

/// Most entries of a list or map that are shown.
const SHOWN_ENTRIES: usize = 64;
/// Longest text that is shown, in bytes.
const SHOWN_TEXT: usize = 512;

/// A value while it is worked with.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Bool(bool),
    List(Rc<[Val<'a>]>),
    Texts(&'a [String]),
    Map(&'a BTreeMap<String, String>),
    MultiMap(&'a BTreeMap<String, Vec<String>>),
    /// A map that is written in the expression.
    Entries(Rc<[(Val<'a>, Val<'a>)]>),
}

impl PartialEq for Val<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one == two,
            (Self::Int(one), Self::Int(two)) => one == two,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::List(_) | Self::Texts(_), Self::List(_) | Self::Texts(_)) => {
                self.items().eq(other.items())
            }
            (Self::MultiMap(one), Self::MultiMap(two)) => one == two,
            (Self::Map(_) | Self::Entries(_), Self::Map(_) | Self::Entries(_)) => {
                self.len() == other.len()
                    && self.keys().all(|key| self.entry(&key) == other.entry(&key))
            }
            _ => false,
        }
    }
}

impl<'a> Val<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Int(number) => Self::Int(*number),
            Value::Bool(flag) => Self::Bool(*flag),
            Value::List(list) => Self::Texts(list),
            Value::Map(map) => Self::Map(map),
            Value::MultiMap(map) => Self::MultiMap(map),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_ref().into(),
            Self::Int(number) => (*number).into(),
            Self::Bool(flag) => (*flag).into(),
            Self::List(_) | Self::Texts(_) => self.items().map(|item| item.to_json()).collect(),
            Self::Map(_) | Self::MultiMap(_) | Self::Entries(_) => self
                .keys()
                .filter_map(|key| Some((key.clone(), self.entry(&key)?.to_json())))
                .map(|(key, value)| (key.text().to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// As JSON, cut to what a person can read.
    pub(super) fn shown(&self) -> serde_json::Value {
        let more = |kept: usize| self.len().saturating_sub(kept);
        match self {
            Self::Text(text) if text.len() > SHOWN_TEXT => {
                let end = (0..=SHOWN_TEXT)
                    .rev()
                    .find(|end| text.is_char_boundary(*end));
                format!("{}…", &text[..end.unwrap_or(0)]).into()
            }
            Self::Text(_) | Self::Int(_) | Self::Bool(_) => self.to_json(),
            Self::List(_) | Self::Texts(_) => {
                let items = self.items().take(SHOWN_ENTRIES).map(|item| item.shown());
                let rest = Some(more(SHOWN_ENTRIES)).filter(|more| *more > 0);
                items
                    .chain(rest.map(|more| format!("… {more} more").into()))
                    .collect()
            }
            Self::Map(_) | Self::MultiMap(_) | Self::Entries(_) => {
                let keys = self.keys().take(SHOWN_ENTRIES);
                let entries =
                    keys.filter_map(|key| Some((key.text().to_owned(), self.entry(&key)?.shown())));
                let rest = Some(more(SHOWN_ENTRIES)).filter(|more| *more > 0);
                let rest = rest.map(|more| ("…".to_owned(), format!("{more} more").into()));
                entries
                    .chain(rest)
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// The form in which a template shows it.
    pub(crate) fn render(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Int(number) => Some(number.to_string().into()),
            Self::Bool(flag) => Some(if flag { "true" } else { "false" }.into()),
            _ => None,
        }
    }

    /// The entries of a list.
    pub(super) fn items(&self) -> Box<dyn Iterator<Item = Val<'a>> + '_> {
        match self {
            Self::List(items) => Box::new(items.iter().cloned()),
            Self::Texts(items) => {
                let items: &'a [String] = items;
                Box::new(
                    items
                        .iter()
                        .map(|text| Val::Text(Cow::Borrowed(text.as_str()))),
                )
            }
            _ => Box::new(std::iter::empty()),
        }
    }

    /// The names of the entries of a map.
    pub(super) fn keys(&self) -> Box<dyn Iterator<Item = Val<'a>> + '_> {
        let text = |key: &'a String| Val::Text(Cow::Borrowed(key.as_str()));
        match *self {
            Self::Map(map) => Box::new(map.keys().map(text)),
            Self::MultiMap(map) => Box::new(map.keys().map(text)),
            Self::Entries(ref entries) => Box::new(entries.iter().map(|(key, _)| key.clone())),
            _ => Box::new(std::iter::empty()),
        }
    }

    pub(super) fn entry(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match *self {
            Self::Map(map) => map
                .get(key.text())
                .map(|text| Val::Text(Cow::Borrowed(text.as_str()))),
            Self::MultiMap(map) => map.get(key.text()).map(|list| Val::Texts(list)),
            Self::Entries(ref entries) => {
                let found = entries.iter().find(|(name, _)| name.text() == key.text());
                found.map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.chars().count(),
            Self::List(items) => items.len(),
            Self::Texts(items) => items.len(),
            Self::Map(map) => map.len(),
            Self::MultiMap(map) => map.len(),
            Self::Entries(entries) => entries.len(),
            Self::Int(_) | Self::Bool(_) => 0,
        }
    }

    /// What it costs to look at the whole of it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len() / 64,
            Self::Texts(items) => items.iter().map(|text| 1 + text.len() / 64).sum(),
            Self::List(items) => items.iter().map(|item| 1 + item.weight()).sum(),
            Self::Map(map) => map
                .iter()
                .map(|(key, value)| 1 + (key.len() + value.len()) / 64)
                .sum(),
            Self::MultiMap(map) => map.values().flatten().map(|text| 1 + text.len() / 64).sum(),
            Self::Entries(entries) => entries.len(),
            Self::Int(_) | Self::Bool(_) => 0,
        }
    }
}
