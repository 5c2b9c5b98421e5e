//! One cache of SVIDs for all workloads of this agent.
//!
//! A set of SVIDs is shared by all workloads that agree in what its grant depends on
//! ([`Reads`]): a thousand streams of one identity cost one issuance. What a grant
//! depends on is known when there is one; until the first answer to a selector, everybody
//! who selects the same follows that one question. So whoever follows a set compares,
//! before anything of it is used, whether the set is for them ([`WorkloadSet::is_for`]).
//!
//! A set lives for as long as a workload that it is for does. It is asked for again with
//! the attributes of one of them, read anew.

mod members;
mod rate;
mod room;
mod tokens;
mod workload;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use attest::Owners;
use tokio::{sync::watch, time::Instant};

use self::{
    members::Members,
    rate::Rate,
    room::{Room, User},
    tokens::Tokens,
};
pub(crate) use self::{
    room::Crowded,
    tokens::TokenError,
    workload::{Unknown, Witness, Workload},
};
use crate::{
    configuration::Selector,
    kept::{Attested, Before, Keeping, KeptSet, KeptSvid, Outcome, SetKind, SetNow},
    metrics::CACHE,
    reads::Reads,
    sealed::Whom,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    keeping: Keeping,
    room: Room,
    owners: Owners,
    rate: Rate,
    sets: Mutex<HashMap<Place, Sets>>,
}

/// What is selected, and as what kind of document.
pub(crate) type Place = (Selector, SetKind);

/// The sets of one selector.
#[derive(Debug, Default)]
struct Sets {
    /// What answers have depended on so far, newest last.
    reads: Vec<Arc<Reads>>,
    /// By [`Reads::key`] of the workloads that they are for.
    by_key: HashMap<String, Arc<WorkloadSet>>,
    /// The set to which there is no answer yet, while there has been none to any.
    first: Option<Arc<WorkloadSet>>,
}

/// Most different dependencies that are remembered of a selector: they change with policy.
const READS_MAX: usize = 8;

/// SVIDs that several workloads share.
#[derive(Debug)]
pub(crate) struct WorkloadSet {
    members: Arc<Members>,
    set: KeptSet,
    tokens: Tokens,
    /// Who had it begun, and when.
    user: User,
    since: Instant,
}

impl Cache {
    pub(crate) fn new(keeping: Keeping) -> Arc<Self> {
        Self::with_room(keeping, Room::default(), Owners::default())
    }

    fn with_room(keeping: Keeping, room: Room, owners: Owners) -> Arc<Self> {
        Arc::new(Self {
            keeping,
            room,
            owners,
            rate: Rate::default(),
            sets: Mutex::default(),
        })
    }

    /// What every set is kept with.
    pub(crate) fn keeping(&self) -> &Keeping {
        &self.keeping
    }

    /// Whom a user counts for where users are bounded.
    pub(crate) fn owner(&self, uid: u32) -> u32 {
        self.owners.owner(uid)
    }

    /// The set that a workload is to follow. It is for the workload once
    /// [`WorkloadSet::is_for`] says so.
    pub(crate) fn set_for(
        self: &Arc<Self>,
        place: &Place,
        workload: &Arc<Workload>,
        attested: &Attested,
    ) -> Result<Arc<WorkloadSet>, Crowded> {
        let mut all = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = all
            .entry(place.clone())
            .or_insert_with(|| self.restored(place));
        let known = attested.workload.as_deref();
        let keys: Vec<_> = sets
            .reads
            .iter()
            .rev()
            .map(|reads| reads.key(known))
            .collect();
        let found = keys.iter().find_map(|key| sets.by_key.get(key));
        if let Some(set) = found.or(sets.first.as_ref()) {
            set.members.join(workload);
            count(place.1, "hit");
            return Ok(set.clone());
        }
        let user = User::of(attested, &self.owners);
        let gone = self.room.make(sets, user);
        if let Some(set) = gone.inspect_err(|_| count(place.1, "refused"))? {
            set.set.forget(&self.keeping.sealed);
        }
        count(place.1, "miss");
        let members = Members::new(Arc::downgrade(self), place.clone());
        members.join(workload);
        let set = self.start(members.clone(), user, Before::Nothing);
        match (keys.into_iter().next(), sets.reads.last()) {
            (Some(key), Some(reads)) => {
                members.set_key(reads.clone(), key.clone());
                sets.by_key.insert(key, set.clone());
            }
            _ => sets.first = Some(set.clone()),
        }
        Ok(set)
    }

    fn start(&self, members: Arc<Members>, user: User, before: Before<'_>) -> Arc<WorkloadSet> {
        let (place, keeping) = (members.place().clone(), self.keeping.clone());
        Arc::new(WorkloadSet {
            set: KeptSet::start(place, members.clone(), keeping, before),
            members,
            tokens: Tokens::default(),
            user,
            since: Instant::now(),
        })
    }

    /// The sets that the process before this one had in a place.
    fn restored(self: &Arc<Self>, place: &Place) -> Sets {
        let mut sets = Sets::default();
        for restored in self.keeping.sealed.take(Whom::Workloads, place) {
            let (reads, workload) = (restored.reads.clone(), restored.attested.workload.clone());
            let key = reads.key(workload.as_deref());
            if !sets.reads.contains(&reads) {
                sets.reads.push(reads.clone());
            }
            let members = Members::new(Arc::downgrade(self), place.clone());
            members.set_key(reads, key.clone());
            let user = User::of(&restored.attested, &self.owners);
            let set = self.start(members, user, Before::Sealed(restored));
            sets.by_key.insert(key, set);
        }
        sets
    }

    /// Notes what the answer to a set depends on, and for which workloads it is therefore.
    fn settle(&self, members: &Members, reads: &Reads, attested: &Attested) {
        let mut all = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sets) = all.get_mut(members.place()) else {
            return;
        };
        let known = sets.reads.iter().position(|known| **known == *reads);
        let reads = match known {
            Some(place) => sets.reads.remove(place),
            None => Arc::new(reads.clone()),
        };
        sets.reads.push(reads.clone());
        if sets.reads.len() > READS_MAX {
            sets.reads.remove(0);
        }
        let key = reads.key(attested.workload.as_deref());
        let Some(set) = sets.take(members) else {
            return;
        };
        members.set_key(reads, key.clone());
        // Of two for the same workloads, the one that was there stays; whoever follows the
        // other one goes on with it.
        sets.by_key.entry(key).or_insert(set);
    }

    /// Forgets a set that nobody is left to keep for; whether that is so still.
    fn retire(&self, members: &Members) -> bool {
        let mut all = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if members.has_joined() {
            return false;
        }
        if let Some(sets) = all.get_mut(members.place()) {
            drop(sets.take(members));
            if sets.by_key.is_empty() && sets.first.is_none() {
                all.remove(members.place());
            }
        }
        true
    }
}

impl Sets {
    /// Takes out the set with these members.
    fn take(&mut self, members: &Members) -> Option<Arc<WorkloadSet>> {
        let is_it = |set: &WorkloadSet| std::ptr::eq(Arc::as_ptr(&set.members), members);
        if self.first.as_deref().is_some_and(is_it) {
            return self.first.take();
        }
        let key = members.key()?;
        if !self.by_key.get(&key).is_some_and(|set| is_it(set)) {
            return None;
        }
        self.by_key.remove(&key)
    }
}

impl WorkloadSet {
    /// Follows it.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<SetNow>> {
        self.set.follow()
    }

    /// Whether a workload agrees in all that the answer depends on.
    pub(crate) fn is_for(now: &SetNow, attested: &Attested) -> bool {
        match now.outcome {
            Outcome::Held | Outcome::Refused => {
                let (asked_with, own) = (&now.attested.workload, &attested.workload);
                now.reads.agree(asked_with.as_deref(), own.as_deref())
            }
            // It says nothing that anybody would be entitled to.
            Outcome::Pending | Outcome::Unavailable => true,
            Outcome::Ended => false,
        }
    }

    /// A JWT-SVID of one of its identities.
    pub(crate) async fn token(
        &self,
        cache: &Cache,
        svid: &KeptSvid,
        audiences: &[String],
        attested: &Attested,
    ) -> Result<(String, SystemTime), TokenError> {
        let ttl = self.members.place().0.ttl;
        let tokens = &self.tokens;
        tokens.token(cache, svid, audiences, attested, ttl).await
    }
}

fn count(kind: SetKind, result: &'static str) {
    let kind = match kind {
        SetKind::X509 => "x509",
        SetKind::Wit => "wit",
    };
    metrics::counter!(CACHE, "kind" => kind, "result" => result).increment(1);
}

#[cfg(test)]
mod tests;
