//! The workloads that share a set.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use futures_util::future::BoxFuture;
use rand::seq::SliceRandom;
use tokio::sync::Notify;

use super::{Cache, Place, Workload};
use crate::{
    kept::{Attested, Bearer},
    reads::Reads,
    sealed::Whom,
};

/// How many workloads are attested to find one to renew for. Where all of them fail, an
/// attestor does, and asking a thousand more would take long and change nothing.
const TRIED_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Members {
    cache: Weak<Cache>,
    place: Place,
    state: Mutex<State>,
    joined: Notify,
}

/// What counts of a workload, and how that is for those of a set.
type Key = (Arc<Reads>, String);

#[derive(Debug, Default)]
struct State {
    /// By address; each lives for as long as its connections.
    workloads: HashMap<usize, Weak<Workload>>,
    /// Who joined last, since the set was asked for: one that asks for tokens from time to
    /// time, over connections that do not last, still finds the set.
    latest: Option<Arc<Workload>>,
    /// For which workloads the set is, once that is known.
    key: Option<Key>,
}

impl Members {
    pub(super) fn new(cache: Weak<Cache>, place: Place) -> Arc<Self> {
        Arc::new(Self {
            cache,
            place,
            state: Mutex::default(),
            joined: Notify::new(),
        })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn join(&self, workload: &Arc<Workload>) {
        let mut state = self.state();
        if state.workloads.len() == state.workloads.capacity() {
            let there = |_: &usize, workload: &mut Weak<Workload>| workload.strong_count() > 0;
            state.workloads.retain(there);
        }
        let address = Arc::as_ptr(workload).addr();
        state.workloads.insert(address, Arc::downgrade(workload));
        state.latest = Some(workload.clone());
        drop(state);
        self.joined.notify_one();
    }

    /// Whether anybody has joined since the last time that everybody was asked.
    pub(super) fn has_joined(&self) -> bool {
        self.state().latest.is_some()
    }

    /// Whether a workload that it is for is there now. That one has been lately is no use.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.state();
        let latest = state.latest.as_ref().map(Arc::as_ptr);
        state.workloads.values().any(|workload| {
            let ours = latest.is_some_and(|latest| std::ptr::eq(latest, workload.as_ptr()));
            workload.strong_count() > usize::from(ours)
        })
    }

    pub(super) fn key(&self) -> Option<String> {
        self.state().key.as_ref().map(|(_, key)| key.clone())
    }

    pub(super) fn set_key(&self, reads: Arc<Reads>, key: String) {
        self.state().key = Some((reads, key));
    }

    /// Everybody who is there, and for whom they should be.
    fn present(&self) -> (Vec<Arc<Workload>>, Option<Key>) {
        let mut state = self.state();
        state
            .workloads
            .retain(|_, workload| workload.strong_count() > 0);
        let latest = state.latest.take();
        let mut others: Vec<_> = state.workloads.values().filter_map(Weak::upgrade).collect();
        // Not the same ones each time.
        others.shuffle(&mut rand::rng());
        (
            latest.into_iter().chain(others).collect(),
            state.key.clone(),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bearer for Members {
    fn attested(&self) -> BoxFuture<'_, Option<Attested>> {
        Box::pin(async {
            let (present, expected) = self.present();
            for workload in present.into_iter().take(TRIED_MAX) {
                let Ok(attested) = workload.attested_since(Instant::now()).await else {
                    continue;
                };
                let is_for = |(reads, key): &Key| reads.key(attested.workload.as_deref()) == *key;
                // One that is another now finds its own set when it looks.
                if expected.as_ref().is_none_or(is_for) {
                    return Some(attested);
                }
            }
            None
        })
    }

    fn returned(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.joined.notified())
    }

    fn is_alone(&self) -> bool {
        let state = self.state();
        let is_there = |workload: &Weak<Workload>| workload.strong_count() > 0;
        state.latest.is_none() && !state.workloads.values().any(is_there)
    }

    fn retires(&self) -> bool {
        self.cache.upgrade().is_none_or(|cache| cache.retire(self))
    }

    fn yields_to_refusal(&self) -> bool {
        true
    }

    fn whom(&self) -> Whom {
        Whom::Workloads
    }

    fn depends_on(&self, reads: &Reads, attested: &Attested) {
        if let Some(cache) = self.cache.upgrade() {
            cache.settle(self, reads, attested);
        }
    }
}
