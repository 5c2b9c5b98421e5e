//! A set-associative cache of verified chains.
//!
//! The key is a SHA-256, so its bytes already spread evenly: they choose one of many small
//! sets, each with its own lock that is held for a scan of at most eight entries. Memory is
//! bounded by construction, and a newcomer pushes out the least recently used of its set.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::PeerIdentity;
use crate::certificate::Window;

const WAYS: usize = 8;

#[derive(Debug)]
pub(super) struct Cache {
    sets: Box<[Mutex<Vec<Entry>>]>,
    ways: usize,
}

#[derive(Debug)]
struct Entry {
    key: [u8; 32],
    peer: PeerIdentity,
    window: Window,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        let ways = capacity.min(WAYS);
        let sets = capacity.checked_div(ways).unwrap_or(0);
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
            ways,
        }
    }

    /// What is remembered under `key`, if it is valid at `now`.
    pub(super) fn get(&self, key: &[u8; 32], now: SystemTime) -> Option<PeerIdentity> {
        let mut set = self.set(key)?;
        let at = set.iter().position(|entry| entry.key == *key)?;
        if !set[at].window.contains(now) {
            // Not forgotten: a clock that was set back and forth must not cost the entry.
            return None;
        }
        // Most recently used last.
        set[at..].rotate_left(1);
        set.last().map(|entry| entry.peer.clone())
    }

    pub(super) fn insert(&self, key: [u8; 32], peer: PeerIdentity, window: Window) {
        let Some(mut set) = self.set(&key) else {
            return;
        };
        set.retain(|entry| entry.key != key);
        if set.len() == self.ways {
            set.remove(0);
        }
        set.push(Entry { key, peer, window });
    }

    pub(super) fn len(&self) -> usize {
        self.sets.iter().map(|set| lock(set).len()).sum()
    }

    fn set(&self, key: &[u8; 32]) -> Option<MutexGuard<'_, Vec<Entry>>> {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&key[..8]);
        let count = u64::try_from(self.sets.len()).ok().filter(|n| *n > 0)?;
        let index = usize::try_from(u64::from_be_bytes(prefix) % count).ok()?;
        self.sets.get(index).map(lock)
    }
}

/// No code panics with the lock held; if it did, the entries would still be whole.
fn lock(set: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
