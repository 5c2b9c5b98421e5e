//! What `/status` says and `tbot-proxy status` shows: one screen of all that an operator
//! asks first. Nothing of it is secret.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    kept::{Outcome, Roll},
    state::{Entry, IdentityState, rfc3339},
};

/// The agent as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the agent.
    pub(crate) version: String,
    /// `ready`, `not_ready` or `draining`.
    pub(crate) status: String,
    pub(crate) bot: Bot,
    pub(crate) issuer: Issuer,
    /// By name.
    pub(crate) services: BTreeMap<String, Entry>,
    /// Sets of SVIDs that are kept, in the order of what is selected.
    pub(crate) identities: Vec<Identities>,
}

/// The identity of the agent itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bot {
    pub(crate) held: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) id: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Issuer {
    /// The one that is used, of those that are configured.
    pub(crate) address: String,
    /// Whether its pushes are followed.
    pub(crate) connected: bool,
    /// Trust domains whose bundles are known.
    pub(crate) trust_domains: Vec<String>,
}

/// A set of SVIDs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identities {
    /// What is selected, in words.
    pub(crate) selected: String,
    /// `pending`, `held`, `refused`, `unavailable` or `ended`.
    pub(crate) outcome: Outcome,
    /// Who follows it: streams, outputs, proxies.
    pub(crate) followers: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    pub(crate) svids: Vec<Svid>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Svid {
    pub(crate) id: String,
    pub(crate) workload_identity: String,
    /// RFC 3339.
    pub(crate) expires: String,
    /// How long it lasts without the issuer.
    pub(crate) seconds_left: u64,
}

impl Identities {
    /// Every set of the roll.
    pub(crate) fn of(roll: &Roll) -> Vec<Self> {
        let now = SystemTime::now();
        let mut all: Vec<_> = roll
            .sets()
            .into_iter()
            .filter_map(|listed| {
                let (set, followers) = listed.now()?;
                let svids = set.svids.iter().map(|svid| Svid {
                    id: svid.id.to_string(),
                    workload_identity: svid.workload_identity.clone(),
                    expires: rfc3339(svid.not_after),
                    seconds_left: svid
                        .not_after
                        .duration_since(now)
                        .unwrap_or_default()
                        .as_secs(),
                });
                Some(Self {
                    selected: listed.selector.selection.to_string(),
                    outcome: set.outcome,
                    followers,
                    reason: set.reason.clone(),
                    svids: svids.collect(),
                })
            })
            .collect();
        all.sort_by(|a, b| a.selected.cmp(&b.selected));
        all
    }
}

impl Bot {
    pub(crate) fn of(state: &IdentityState, identity: &identity::Identity) -> Self {
        let svid = identity.svid.as_ref();
        Self {
            held: state.held,
            id: svid.map(|svid| svid.id().to_string()),
            expires: svid.map(|svid| rfc3339(svid.not_after())),
            reason: state.reason.clone(),
        }
    }
}
