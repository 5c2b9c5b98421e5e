//! The watched source of identity and trust.
//!
//! One [`IdentitySource`] per identity in a process. Readers on a hot path take
//! [`IdentitySource::current`], which is a load and no lock; whoever must act on a change
//! follows [`IdentitySource::subscribe`]. Both show the same value, and a change is visible
//! to readers before any watcher wakes.
//!
//! Generations come from one counter of the process, so that a number stands for one value
//! everywhere: caches may be shared between sources without mixing them up.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{ChainVerifier, TrustBundleSet, X509Svid};

/// Chains that a source's verifier remembers.
const VERIFIED_CHAINS: usize = 4096;

/// Identity and trust at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// Our SVID, once there is one.
    pub svid: Option<Arc<X509Svid>>,
    /// Whom we trust.
    pub bundles: Arc<TrustBundleSet>,
    /// Rises with each change of either; unique in the process.
    pub generation: u64,
    /// Rises with each change of the bundles; unique in the process.
    pub bundle_generation: u64,
}

/// Holds the current [`Identity`] and tells watchers of changes.
#[derive(Debug)]
pub struct IdentitySource {
    current: ArcSwap<Identity>,
    tx: watch::Sender<Arc<Identity>>,
    verifier: ChainVerifier,
}

impl IdentitySource {
    /// Empty: no SVID, no trust.
    pub fn new() -> Arc<Self> {
        Self::start(None, TrustBundleSet::default())
    }

    /// With a first SVID and bundles.
    pub fn with(svid: X509Svid, bundles: TrustBundleSet) -> Arc<Self> {
        Self::start(Some(Arc::new(svid)), bundles)
    }

    fn start(svid: Option<Arc<X509Svid>>, bundles: TrustBundleSet) -> Arc<Self> {
        let generation = next_generation();
        let first = Arc::new(Identity {
            svid,
            bundles: Arc::new(bundles),
            generation,
            bundle_generation: generation,
        });
        Arc::new(Self {
            current: ArcSwap::new(first.clone()),
            tx: watch::Sender::new(first),
            verifier: ChainVerifier::new(VERIFIED_CHAINS),
        })
    }

    /// What holds now.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// Follows changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.tx.subscribe()
    }

    /// The verifier of peers' chains that everything built on this source shares.
    pub fn verifier(&self) -> &ChainVerifier {
        &self.verifier
    }

    /// Replaces the SVID; nothing happens if it is the same one.
    pub fn set_svid(&self, svid: Arc<X509Svid>) {
        self.change(Some(Some(svid)), None);
    }

    /// Takes the SVID away.
    pub fn clear_svid(&self) {
        self.change(Some(None), None);
    }

    /// Replaces the bundles; nothing happens if they are equal.
    pub fn set_bundles(&self, bundles: TrustBundleSet) {
        self.change(None, Some(bundles));
    }

    /// Replaces both at once; what is equal stays.
    pub fn set(&self, svid: Arc<X509Svid>, bundles: TrustBundleSet) {
        self.change(Some(Some(svid)), Some(bundles));
    }

    /// One change is one new value: the watch channel's lock keeps changes in a row.
    fn change(&self, svid: Option<Option<Arc<X509Svid>>>, bundles: Option<TrustBundleSet>) {
        self.tx.send_if_modified(|identity| {
            let new_svid = svid.filter(|new| !same_svid(new.as_ref(), identity.svid.as_ref()));
            let new_bundles = bundles.filter(|new| *new != *identity.bundles);
            if new_svid.is_none() && new_bundles.is_none() {
                return false;
            }
            let generation = next_generation();
            let next = Arc::new(Identity {
                generation,
                bundle_generation: match new_bundles {
                    Some(_) => generation,
                    None => identity.bundle_generation,
                },
                svid: new_svid.unwrap_or_else(|| identity.svid.clone()),
                bundles: new_bundles.map_or_else(|| identity.bundles.clone(), Arc::new),
            });
            self.current.store(next.clone());
            *identity = next;
            true
        });
    }

    /// [`Self::current`] without counting a reference, for the handshake path.
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Identity>> {
        self.current.load()
    }
}

/// The chain names the key, so equal chains are equal SVIDs.
fn same_svid(one: Option<&Arc<X509Svid>>, other: Option<&Arc<X509Svid>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.chain() == other.chain(),
        (None, None) => true,
        _ => false,
    }
}

fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests;
