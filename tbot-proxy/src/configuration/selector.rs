//! Which identities a service uses: `selector: {name: …}` or `selector: {labels: …}`.

use std::{fmt, time::Duration};

use config::Fields;
use proto::issue::v1 as pb;
use serde::{Deserialize, Serialize};

use super::service::parse_name;

/// Which identities, and how long their SVIDs live. Services with an equal one share them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selector {
    /// Which `workload_identity` resources.
    pub selection: Selection,
    /// Wanted life of an SVID, in whole seconds.
    pub ttl: Duration,
}

/// Which `workload_identity` resources. `Display` tells them in a line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Selection {
    /// The one of this name.
    Name(String),
    /// Those of which each of these labels has one of these values; `*` for any. At
    /// least one, in the order of their keys.
    Labels(Vec<(String, Vec<String>)>),
}

impl Selection {
    /// As it is asked of the issuer; by labels, after the resource of this name.
    pub(crate) fn to_wire(&self, after: &str) -> pb::svid_request::Selector {
        match self {
            Self::Name(name) => pb::svid_request::Selector::Name(name.clone()),
            Self::Labels(labels) => {
                let selectors = labels.iter().map(|(key, values)| pb::LabelSelector {
                    key: key.clone(),
                    values: values.clone(),
                });
                pb::svid_request::Selector::Labels(pb::LabelSelectors {
                    selectors: selectors.collect(),
                    after: after.to_owned(),
                })
            }
        }
    }

    /// Label of a metric: a name that the configuration gives, or `by_labels`.
    pub(crate) fn metric_label(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Labels(_) => "by_labels".to_owned(),
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "workload_identity `{name}`"),
            Self::Labels(labels) => {
                f.write_str("workload identities with the labels ")?;
                for (number, (key, values)) in labels.iter().enumerate() {
                    let comma = if number > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}=[{}]", values.join(", "))?;
                }
                Ok(())
            }
        }
    }
}

/// Reads a mapping with `name` or `labels`, one of them.
pub(super) fn selection(fields: &mut Fields<'_>, key: &'static str) -> Option<Selection> {
    fields.required_mapping(key, |fields| {
        let name = fields.optional("name", parse_name);
        let mut labels = fields.string_list_map("labels");
        match (fields.has("name"), fields.has("labels")) {
            (true, true) => {
                fields.mistake("labels", "both `name` and `labels`: remove one");
                None
            }
            (false, false) => {
                fields.mistake("", "missing key `name` (or `labels`)");
                None
            }
            (true, false) => name.map(Selection::Name),
            (false, true) if labels.is_empty() || labels.iter().any(|(_, v)| v.is_empty()) => {
                let message = "`labels`: at least one label, each with at least one value, as {env: [production]}; \"*\" is any";
                fields.mistake("labels", message);
                None
            }
            (false, true) => {
                labels.sort();
                Some(Selection::Labels(labels))
            }
        }
    })
}
