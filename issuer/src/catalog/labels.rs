//! Which workload identities have which labels.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

use crate::resources::LabelSelector;

type Names = RedBlackTreeSetSync<Arc<str>>;

/// The labels of one resource, by key. Equal texts are shared among resources.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        Some(&self.0[place].1)
    }
}

/// A label's key, and its value or none for any value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Label {
    key: Arc<str>,
    value: Option<Arc<str>>,
}

/// Names by label.
#[derive(Debug, Clone, Default)]
pub(super) struct LabelIndex {
    names: HashTrieMapSync<Label, Names>,
}

impl LabelIndex {
    /// These labels, in texts that the index holds already where it does.
    pub(super) fn interned(&self, labels: HashMap<String, String>) -> Labels {
        let mut interned: Vec<_> = labels
            .into_iter()
            .map(|(key, value)| {
                let label = Label {
                    key: key.into(),
                    value: Some(value.into()),
                };
                let any = Label {
                    key: label.key.clone(),
                    value: None,
                };
                let known = self.names.get_key_value(&label).map(|(label, _)| label);
                let known_key = self.names.get_key_value(&any).map(|(any, _)| any);
                let label = known.cloned().unwrap_or(label);
                let key = known_key.map_or(label.key, |any| any.key.clone());
                (key, label.value.unwrap_or_default())
            })
            .collect();
        interned.sort();
        Labels(interned.into())
    }

    pub(super) fn add(&mut self, name: &Arc<str>, labels: &Labels) {
        for label in both(labels) {
            // Taken out, changed in place, put back: no other catalog sees it.
            match self.names.get_mut(&label) {
                Some(names) => names.insert_mut(name.clone()),
                None => {
                    let mut names = Names::new_sync();
                    names.insert_mut(name.clone());
                    self.names.insert_mut(label, names);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str, labels: &Labels) {
        for label in both(labels) {
            let Some(names) = self.names.get_mut(&label) else {
                continue;
            };
            names.remove_mut(name);
            if names.is_empty() {
                self.names.remove_mut(&label);
            }
        }
    }

    fn get(&self, key: &str, value: Option<&str>) -> Option<&Names> {
        self.names.get(&Label {
            key: key.into(),
            value: value.map(Into::into),
        })
    }
}

/// Each label as it is, and as its key with any value.
fn both(labels: &Labels) -> impl Iterator<Item = Label> {
    labels.0.iter().flat_map(|(key, value)| {
        [Some(value.clone()), None].map(|value| Label {
            key: key.clone(),
            value,
        })
    })
}

/// Among whom those that a selector selects are to be looked for.
pub(super) enum Candidates<'c> {
    Everyone,
    Among(Vec<&'c Names>),
    Nobody,
}

/// The shortest list that holds all whom the selector selects: those who have one
/// of the values of one of its keys.
pub(super) fn fewest<'c>(selector: &LabelSelector, index: &'c LabelIndex) -> Candidates<'c> {
    let mut fewest: Option<(usize, Vec<&Names>)> = None;
    let mut everyone = false;
    for (key, values) in selector.iter() {
        if key == "*" {
            everyone = true;
            continue;
        }
        let sets: Vec<_> = match values.iter().any(|value| value == "*") {
            true => index.get(key, None).into_iter().collect(),
            false => {
                let values: BTreeSet<_> = values.iter().collect();
                let named = values.into_iter();
                named
                    .filter_map(|value| index.get(key, Some(value)))
                    .collect()
            }
        };
        let size = sets.iter().map(|set| set.size()).sum();
        if fewest.as_ref().is_none_or(|(least, _)| size < *least) {
            fewest = Some((size, sets));
        }
    }
    match (fewest, everyone) {
        (Some((_, sets)), _) => Candidates::Among(sets),
        (None, true) => Candidates::Everyone,
        (None, false) => Candidates::Nobody,
    }
}

/// The names of several lists that have none in common, in one order.
pub(super) fn merged<'c>(
    sets: Vec<&'c Names>,
    after: Option<&'c str>,
) -> Box<dyn Iterator<Item = &'c Arc<str>> + Send + 'c> {
    let mut lists: Vec<_> = sets
        .into_iter()
        .map(|set| set.range::<str, _>(names_after(after)).peekable())
        .collect();
    if lists.len() == 1
        && let Some(only) = lists.pop()
    {
        return Box::new(only);
    }
    Box::new(std::iter::from_fn(move || {
        let heads = lists.iter_mut().enumerate();
        let (_, first) = heads
            .filter_map(|(place, list)| Some((*list.peek()?, place)))
            .min()?;
        lists[first].next()
    }))
}

/// The range of names that come after one, or of all.
pub(super) fn names_after(after: Option<&str>) -> (Bound<&str>, Bound<&str>) {
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}
