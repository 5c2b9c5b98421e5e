//! Labels and what selects by them.

use std::collections::BTreeMap;

use super::NameError;

/// Which labels a resource must carry: every key must match, the values of a key
/// are alternatives, `*` as a value matches any value, and `*: *` matches every
/// resource. An empty selector matches none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(BTreeMap<String, Vec<String>>);

impl LabelSelector {
    /// Most keys, and most values of a key.
    const MOST: usize = 64;

    /// Checks the keys and values.
    pub fn new(keys: impl IntoIterator<Item = (String, Vec<String>)>) -> Result<Self, NameError> {
        let mut selector = BTreeMap::new();
        for (key, values) in keys {
            if selector.len() == Self::MOST || values.len() > Self::MOST {
                let why = "at most 64 keys with at most 64 values each are accepted";
                return Err(NameError::new("label selector key", &key, why));
            }
            if values.is_empty() {
                let why = "a key without values matches nothing: name values, or `*`";
                return Err(NameError::new("label selector key", &key, why));
            }
            if key == "*" && values != ["*"] {
                let why = "the key `*` goes with the value `*` only";
                return Err(NameError::new("label selector key", &key, why));
            }
            if key != "*" {
                check_label(&key, "")?;
            }
            for value in &values {
                check_label("*", value)?;
            }
            if selector.insert(key.clone(), values).is_some() {
                let why = "it is given twice";
                return Err(NameError::new("label selector key", &key, why));
            }
        }
        Ok(Self(selector))
    }

    /// Whether a resource with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// The same for labels that are held in another form, each told by its key.
    pub fn matches_by<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|(key, values)| {
                key == "*"
                    || label(key).is_some_and(|label| {
                        values.iter().any(|value| value == "*" || value == label)
                    })
            })
    }

    /// Whether it selects nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.0.iter()
    }
}

/// Checks one label: key 1 to 128 printable ASCII characters, value up to 256
/// bytes without control characters.
pub(crate) fn check_label(key: &str, value: &str) -> Result<(), NameError> {
    let key_ok = (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !key_ok {
        let why = "a label's key has 1 to 128 printable ASCII characters";
        return Err(NameError::new("label", key, why));
    }
    if value.len() > 256 || value.chars().any(char::is_control) {
        let why = "a label's value has at most 256 bytes and no control characters";
        return Err(NameError::new("label value", value, why));
    }
    Ok(())
}
