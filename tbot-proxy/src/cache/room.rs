//! How many sets there may be: a user of this machine who starts processes without end
//! neither fills our memory nor asks the issuer for each of them.
//!
//! Sets that nobody uses give way to new ones, oldest first, once they have been there for a
//! while; so one user's workloads have new sets begun at a bounded rate, and the others are
//! not concerned.

use std::time::Duration;

use attest::Owners;
use serde_json::Value;
use tokio::time::Instant;

use super::{Sets, WorkloadSet};
use crate::kept::Attested;

/// Bounds on the sets of one selector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Most that the workloads of one user have begun.
    pub(crate) of_one_user: usize,
    /// Most in all.
    pub(crate) of_all: usize,
    /// How long one stays that nobody uses, at least.
    pub(crate) rest: Duration,
}

impl Default for Room {
    /// 1,000 and 20,000; a minute. A node of Kubernetes has a few hundred pods.
    fn default() -> Self {
        Self {
            of_one_user: 1_000,
            of_all: 20_000,
            rest: Duration::from_secs(60),
        }
    }
}

/// Who had a set begun: a user, the one who has a lent id ([`Owners`]), or workloads of
/// which none is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct User(Option<u32>);

impl User {
    #[cfg(test)]
    pub(super) fn from_uid(uid: u32) -> Self {
        Self(Some(uid))
    }

    pub(super) fn of(attested: &Attested, owners: &Owners) -> Self {
        let workload = attested.workload.as_deref();
        let uid = workload.and_then(|it| it.pointer("/unix/uid").and_then(Value::as_u64));
        let uid = uid.and_then(|uid| u32::try_from(uid).ok());
        Self(uid.map(|uid| owners.owner(uid)))
    }
}

/// There are as many sets as there may be, and all of them are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many different identities are in use at one time: {0}; a set is shared by workloads that agree in what policy looks at"
)]
pub(crate) struct Crowded(pub(super) &'static str);

impl Room {
    /// Makes room for a set of this user: takes out the one that gives way, if one must.
    pub(super) fn make(
        &self,
        sets: &mut Sets,
        user: User,
    ) -> Result<Option<std::sync::Arc<WorkloadSet>>, Crowded> {
        let is_full = sets.by_key.len() >= self.of_all;
        let of_user = sets.by_key.values().filter(|set| set.user == user).count();
        if !is_full && of_user < self.of_one_user {
            return Ok(None);
        }
        let now = Instant::now();
        let gives_way = |set: &WorkloadSet| {
            (is_full || set.user == user)
                && now.duration_since(set.since) >= self.rest
                && !set.members.is_in_use()
        };
        let oldest = sets
            .by_key
            .iter()
            .filter(|(_, set)| gives_way(set))
            .min_by_key(|(_, set)| set.since)
            .map(|(key, _)| key.clone());
        match oldest {
            Some(key) => Ok(sets.by_key.remove(&key)),
            None if is_full => Err(Crowded("by all users of this machine")),
            None => Err(Crowded("by this user")),
        }
    }
}
