//! What the sealed store has of a set: read once at the start, and kept as the set is.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::KeptSvid;
use crate::{
    cache::Place,
    sealed::{Name, Restored, Sealed, Whom},
    state::rfc3339,
    trust::{RenewOrder, Trust},
};

/// How long is waited for the issuer to tell under which policy we are, before it counts as
/// away.
const HEARING: Duration = Duration::from_secs(2);

/// One set in the sealed store.
pub(super) struct Sealing {
    store: Arc<Sealed>,
    whom: Whom,
    place: Place,
    /// What was held before this process began, until it is known whether it counts.
    restored: Option<Restored>,
    /// What is in the store.
    saved: Option<Saved>,
}

/// What was held last of a set, and its name in the store.
struct Saved {
    name: Name,
    svids: Vec<Arc<KeptSvid>>,
}

/// What was held before, and counts still.
pub(super) struct Counts {
    pub(super) set: Restored,
    /// Whether the issuer has ordered to renew since.
    pub(super) is_due: bool,
}

impl Sealing {
    pub(super) fn new(
        store: Arc<Sealed>,
        whom: Whom,
        place: Place,
        restored: Option<Restored>,
    ) -> Self {
        Self {
            store,
            whom,
            place,
            restored,
            saved: None,
        }
    }

    /// What was held before this process began, unless there was nothing, or it was granted
    /// under another policy than the issuer tells of, or to a bot that may have nothing now.
    /// An issuer that does not tell in time is away.
    pub(super) async fn restore(
        &mut self,
        trust: &Trust,
        order: &mut watch::Receiver<Option<RenewOrder>>,
    ) -> Option<Counts> {
        let mut set = self.restored.take()?;
        _ = tokio::time::timeout(HEARING, trust.heard()).await;
        let order = *order.borrow_and_update();
        let name = self.name(&set);
        if order.is_some_and(|order| set.is_of_other_policy(order)) {
            tracing::info!(selected = %self.place.0.selection, "policy is another since: what was sealed does not count");
            self.store.put(&name, None);
            return None;
        }
        for svid in &set.svids {
            tracing::info!(
                id = %svid.id,
                workload_identity = svid.workload_identity,
                document = ?svid.document,
                not_after = rfc3339(svid.not_after),
                "SVID from the sealed store"
            );
        }
        self.saved = Some(Saved {
            name,
            svids: set.svids.clone(),
        });
        let is_due = order.is_some_and(|order| set.obtained.renewal_within(order).is_some());
        Some(Counts { set, is_due })
    }

    /// Has the store follow what is held.
    pub(super) fn save(&mut self, svids: &[Arc<KeptSvid>], set: impl FnOnce() -> Restored) {
        if !self.store.is_open() {
            return;
        }
        let nothing_to_do = match &self.saved {
            Some(saved) => same(&saved.svids, svids),
            None => svids.is_empty(),
        };
        if nothing_to_do || self.restored.is_some() {
            return;
        }
        let set = set();
        let name = self.name(&set);
        if let Some(saved) = &self.saved
            && (saved.name != name || set.svids.is_empty())
        {
            self.store.put(&saved.name, None);
        }
        self.saved = None;
        if !set.svids.is_empty() {
            self.store.put(&name, Some(&set));
            self.saved = Some(Saved {
                name,
                svids: set.svids,
            });
        }
    }

    fn name(&self, set: &Restored) -> Name {
        Name::new(self.whom, self.place.clone(), &set.reads, &set.attested)
    }
}

/// Whether two sets are the same documents.
pub(super) fn same(one: &[Arc<KeptSvid>], two: &[Arc<KeptSvid>]) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(a, b)| Arc::ptr_eq(a, b))
}
