//! What of a workload an answer of the issuer depends on.
//!
//! Two workloads that agree in all of it are granted the same, so they share one
//! issuance. Where the issuer does not say, everything counts.

use proto::issue::v1 as pb;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The attributes that count. `Default`: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reads {
    /// Not known: all.
    All,
    /// None.
    #[default]
    Nothing,
    /// These; each list in order, each name once.
    Some {
        /// Of which the value counts, or that there is none.
        attributes: Vec<String>,
        /// Of which it counts whether there is any attribute in it.
        groups: Vec<String>,
    },
}

impl Reads {
    /// As an answer tells it.
    pub(crate) fn of(wire: Option<pb::WorkloadReads>) -> Self {
        let Some(pb::WorkloadReads { attributes, groups }) = wire else {
            return Self::All;
        };
        if attributes.is_empty() && groups.is_empty() {
            return Self::Nothing;
        }
        let in_order = |mut names: Vec<String>| {
            names.sort_unstable();
            names.dedup();
            names
        };
        Self::Some {
            attributes: in_order(attributes),
            groups: in_order(groups),
        }
    }

    /// What counts for either of two answers.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Nothing, reads) | (reads, Self::Nothing) => reads,
            (
                Self::Some {
                    mut attributes,
                    mut groups,
                },
                Self::Some {
                    attributes: more_attributes,
                    groups: more_groups,
                },
            ) => {
                attributes.extend(more_attributes);
                groups.extend(more_groups);
                Self::of(Some(pb::WorkloadReads { attributes, groups }))
            }
        }
    }

    /// What counts of a workload, as text: equal for two that agree in it, and different
    /// for two that do not. `workload`: the tree below `workload`, if it was attested.
    pub(crate) fn key(&self, workload: Option<&Value>) -> String {
        let nothing = Value::Null;
        let workload = workload.unwrap_or(&nothing);
        match self {
            Self::All => format!("all {workload}"),
            Self::Nothing => "nothing".to_owned(),
            Self::Some { attributes, groups } => {
                let values = attributes
                    .iter()
                    .map(|name| serde_json::json!([name, at(workload, name)]));
                let presences = groups
                    .iter()
                    .map(|name| serde_json::json!([name, has_any(workload, name)]));
                values.chain(presences).collect::<Value>().to_string()
            }
        }
    }

    /// Whether two workloads agree in what counts: whether they have the same
    /// [`key`](Self::key), without making any, as thousands of streams ask at once.
    pub(crate) fn agree(&self, one: Option<&Value>, other: Option<&Value>) -> bool {
        let nothing = Value::Null;
        let (one, other) = (one.unwrap_or(&nothing), other.unwrap_or(&nothing));
        match self {
            _ if std::ptr::eq(one, other) => true,
            Self::All => one == other,
            Self::Nothing => true,
            Self::Some { attributes, groups } => {
                // What is not there is as `null`, in a key too.
                let same_value = |name: &String| {
                    at(one, name).unwrap_or(&nothing) == at(other, name).unwrap_or(&nothing)
                };
                let same_presence = |name: &String| has_any(one, name) == has_any(other, name);
                attributes.iter().all(same_value) && groups.iter().all(same_presence)
            }
        }
    }
}

/// Whether there is any attribute in a group.
fn has_any(workload: &Value, name: &str) -> bool {
    let there = at(workload, name).and_then(Value::as_object);
    there.is_some_and(|group| !group.is_empty())
}

/// The value of `workload.unix.uid` in the tree below `workload`.
fn at<'a>(workload: &'a Value, name: &str) -> Option<&'a Value> {
    let mut path = name.split('.');
    path.next().filter(|first| *first == "workload")?;
    path.try_fold(workload, |value, key| value.get(key))
}

#[cfg(test)]
mod tests;
