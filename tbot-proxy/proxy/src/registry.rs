//! Every connection of a service, from accept to end: the index that lets a change of policy, trust or time
//! touch only the connections that it concerns.
//!
//! A connection is in one of two places. Until its peer has proven an identity it is *pending*, in order of
//! arrival; when listeners are full, the oldest pending ones give way ([`Registry::room`]), never one whose
//! peer is proven. From then on it stands under its *peer*: one entry for all connections that showed the
//! same chain. Policy, trust and expiry are decided once a peer, not once a connection, and the chain is kept
//! once.
//!
//! A cut aborts the connection's task: dropping the future is the one way out that no await can delay.
//! The reason is put down first, so that the record tells it and not the symptom.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use identity::PeerIdentity;
use rustls::pki_types::CertificateDer;
use tokio::{sync::Notify, time::Instant};

use crate::close_reason::Close;

mod live;

pub(crate) use live::{Bytes, Live};

/// A peer that has not proven itself for this long gives way when others wait. A handshake takes a few
/// milliseconds and two round trips.
pub(crate) const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);

/// A peer's chain, leaf first. Shared with the verifier's cache.
pub(crate) type Chain = Arc<[CertificateDer<'static>]>;

/// Number of a distinct peer, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerNumber(u64);

/// All connections of one service.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    open: AtomicUsize,
    /// A connection has ended or proven its peer, or the limits have changed: there may be room.
    pub(crate) released: Notify,
    /// The last connection has ended.
    pub(crate) emptied: Notify,
    /// A peer whose identity ends before all others', or other terms: the next expiry has to be told anew.
    pub(crate) expiry_moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why no connection may live any more.
    shut: Option<Close>,
    last_connection: u64,
    last_peer: u64,
    pending: BTreeMap<u64, Arc<Live>>,
    /// The connection that was told to give way, until it is gone.
    giving_way: Option<u64>,
    by_chain: HashMap<Chain, PeerNumber>,
    peers: BTreeMap<PeerNumber, Peer>,
    /// Ends of the peers' identities, soonest first; without those that have been dealt with.
    expiries: BTreeSet<(SystemTime, PeerNumber)>,
}

#[derive(Debug)]
struct Peer {
    identity: Arc<PeerIdentity>,
    live: BTreeMap<u64, Arc<Live>>,
}

/// Whether there is room for one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// None. The oldest pending connection gives way at this moment, if there is one and none is giving way.
    Full {
        gives_way: Option<Instant>,
    },
}

impl Registry {
    /// Takes in a connection that was accepted.
    pub(crate) fn enter(&self) -> Arc<Live> {
        self.open.fetch_add(1, Ordering::AcqRel);
        let mut state = self.lock();
        state.last_connection += 1;
        let live = Arc::new(Live::new(state.last_connection));
        if let Some(close) = &state.shut {
            live.cut(close.clone());
        }
        state.pending.insert(live.number, Arc::clone(&live));
        live
    }

    /// Puts a connection under its peer. `None`: it has been told to give way before its peer was proven.
    pub(crate) fn register(&self, live: &Arc<Live>, identity: PeerIdentity) -> Option<Registered> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.giving_way == Some(live.number) {
            return None;
        }
        state.pending.remove(&live.number);
        let number = match state.by_chain.get(&identity.chain) {
            Some(number) => *number,
            None => {
                state.last_peer += 1;
                PeerNumber(state.last_peer)
            }
        };
        let peer = state.peers.entry(number).or_insert_with(|| {
            state.by_chain.insert(Arc::clone(&identity.chain), number);
            state.expiries.insert((identity.not_after, number));
            if state
                .expiries
                .first()
                .is_some_and(|(_, soonest)| *soonest == number)
            {
                self.expiry_moved.notify_one();
            }
            Peer {
                identity: Arc::new(identity),
                live: BTreeMap::new(),
            }
        });
        peer.live.insert(live.number, Arc::clone(live));
        let registered = Registered {
            peer: number,
            identity: Arc::clone(&peer.identity),
        };
        drop(guard);
        self.released.notify_one();
        Some(registered)
    }

    /// Takes out a connection that has ended, wherever it is.
    pub(crate) fn leave(&self, live: &Live, peer: Option<PeerNumber>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.pending.remove(&live.number);
        // In `open` no more before another may be told to give way: one in, one out.
        let was_last = self.open.fetch_sub(1, Ordering::AcqRel) == 1;
        state.giving_way.take_if(|number| *number == live.number);
        if let Some(number) = peer
            && let Some(peer) = state.peers.get_mut(&number)
        {
            peer.live.remove(&live.number);
            if peer.live.is_empty()
                && let Some(peer) = state.peers.remove(&number)
            {
                state.by_chain.remove(&peer.identity.chain);
                state.expiries.remove(&(peer.identity.not_after, number));
            }
        }
        drop(guard);
        if was_last {
            self.emptied.notify_one();
        }
        self.released.notify_one();
    }

    /// Connections that are accepted and not yet ended.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Whether one more may be accepted: fewer than `max_open` in all and than `max_pending` unproven.
    pub(crate) fn room(&self, max_open: usize, max_pending: usize) -> Room {
        let state = self.lock();
        if self.open() < max_open && state.pending.len() < max_pending {
            return Room::Free;
        }
        let oldest = match state.giving_way {
            Some(_) => None,
            None => state.pending.first_key_value(),
        };
        Room::Full {
            gives_way: oldest.map(|(_, live)| live.entered + GIVES_WAY_AFTER),
        }
    }

    /// Cuts the oldest pending connection if it has been pending for [`GIVES_WAY_AFTER`]; one at a time: not
    /// while one that was cut is still open.
    ///
    /// Decided under the lock under which a peer is proven: a connection either gives way or is
    /// registered, never both.
    pub(crate) fn cut_oldest_pending(&self, close: impl FnOnce(Duration) -> Close) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.giving_way.is_some() {
            return;
        }
        let Some(oldest) = state.pending.first_entry() else {
            return;
        };
        let age = oldest.get().entered.elapsed();
        if age < GIVES_WAY_AFTER {
            return;
        }
        let live = oldest.remove();
        state.giving_way = Some(live.number);
        drop(guard);
        live.cut(close(age));
    }

    /// The peers of this moment, with their chains.
    pub(crate) fn chains(&self) -> Vec<(PeerNumber, Chain)> {
        let state = self.lock();
        let chains = state.peers.iter();
        chains
            .map(|(number, peer)| (*number, Arc::clone(&peer.identity.chain)))
            .collect()
    }

    /// Replaces what is known of a peer, which has been verified anew.
    pub(crate) fn renew(&self, number: PeerNumber, identity: PeerIdentity) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(peer) = state.peers.get_mut(&number)
            && *peer.identity != identity
        {
            state.expiries.remove(&(peer.identity.not_after, number));
            state.expiries.insert((identity.not_after, number));
            peer.identity = Arc::new(identity);
            self.expiry_moved.notify_one();
        }
    }

    /// Cuts the connections of one peer, if it is still there.
    pub(crate) fn cut_peer(&self, number: PeerNumber, close: &Close) {
        let cut = |peer: &Peer| peer.live.values().cloned().collect();
        let live: Vec<_> = self.lock().peers.get(&number).map(cut).unwrap_or_default();
        cut_all(live, close);
    }

    /// Cuts the connections of every peer that `refuse` finds a reason for; asks it once a peer.
    pub(crate) fn cut_peers(&self, refuse: impl Fn(&PeerIdentity) -> Option<Close>) {
        let mut refused = Vec::new();
        for peer in self.lock().peers.values() {
            if let Some(close) = refuse(&peer.identity) {
                refused.push((close, peer.live.values().cloned().collect::<Vec<_>>()));
            }
        }
        for (close, live) in refused {
            cut_all(live, &close);
        }
    }

    /// Cuts all, pending ones too, and returns how many.
    pub(crate) fn cut_everything(&self, close: &Close) -> usize {
        let mut live: Vec<Arc<Live>> = Vec::new();
        let state = self.lock();
        live.extend(state.pending.values().cloned());
        live.extend(
            state
                .peers
                .values()
                .flat_map(|peer| peer.live.values().cloned()),
        );
        drop(state);
        cut_all(live, close)
    }

    /// What proven connections have carried since it was last told.
    pub(crate) fn take_untold(&self) -> Bytes {
        let mut bytes = Bytes::default();
        for peer in self.lock().peers.values() {
            peer.live
                .values()
                .for_each(|live| bytes += live.take_untold());
        }
        bytes
    }

    /// Whether the identity of a peer has ended at `now` (or the peer is gone).
    pub(crate) fn is_expired(&self, number: PeerNumber, now: SystemTime) -> bool {
        let state = self.lock();
        state
            .peers
            .get(&number)
            .is_none_or(|peer| peer.identity.not_after <= now)
    }

    /// Cuts all, and whatever enters from now on.
    pub(crate) fn shut(&self, close: &Close) {
        self.lock().shut = Some(close.clone());
        self.cut_everything(close);
    }

    /// When the first identity ends of those that nobody has dealt with.
    pub(crate) fn next_expiry(&self) -> Option<SystemTime> {
        self.lock().expiries.first().map(|(ends, _)| *ends)
    }

    /// Takes the peers whose identity has ended at `now` off the list of expiries: each is told once.
    pub(crate) fn take_expired(&self, now: SystemTime) -> Vec<(PeerNumber, Arc<PeerIdentity>)> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut expired = Vec::new();
        while let Some((ends, number)) = state.expiries.first().copied()
            && ends <= now
        {
            state.expiries.pop_first();
            if let Some(peer) = state.peers.get(&number) {
                expired.push((number, Arc::clone(&peer.identity)));
            }
        }
        expired
    }

    /// Puts every peer on the list of expiries again: other terms hold from now on.
    pub(crate) fn renew_expiries(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let all = state
            .peers
            .iter()
            .map(|(number, peer)| (peer.identity.not_after, *number));
        state.expiries.extend(all);
        drop(guard);
        self.expiry_moved.notify_one();
    }

    /// What the lock guards stays whole whoever panics, for no step of a change calls foreign code.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts outside the registry's lock, which every connection that ends takes.
fn cut_all(live: Vec<Arc<Live>>, close: &Close) -> usize {
    live.into_iter()
        .filter(|live| live.cut(close.clone()))
        .count()
}

/// Where a connection stands after [`Registry::register`].
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) peer: PeerNumber,
    pub(crate) identity: Arc<PeerIdentity>,
}

#[cfg(test)]
mod tests;
