//! Who may be connected at the same time.
//!
//! Every connection takes one of the *places*, of which there are fewer than the
//! process may open files: what else needs a file (store, admin socket, probes)
//! always gets one. A peer that has not proven to be a bot (in its handshake, or
//! without a certificate) is a *stranger*. Strangers have a pool of their own that
//! is at most half of the places, so that no crowd of them shuts the bots out, and
//! one source (an IPv4 address, or an IPv6 /64) has at most half of that pool. When
//! the pool is full the stranger that has been here longest is cut: an honest
//! handshake and join take milliseconds, a hoarder stays. Bots are not counted by
//! source: a fleet may stand behind one address.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::join::limit::network_of;

/// Open connections at most, of bots and strangers.
const CONNECTIONS_MAX: usize = 4096;
/// Open connections of strangers at most.
const STRANGERS_MAX: usize = 1024;
/// Files that are kept for what is no connection of an agent: the store, the
/// sockets, operators, probes.
const FILES_RESERVED: usize = 64;
/// With fewer files nothing useful can be served.
pub const FILES_MIN: usize = 2 * FILES_RESERVED;
/// How often the log tells that peers are turned away.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How many connections may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all.
    pub total: usize,
    /// Of strangers.
    pub strangers: usize,
    /// Of strangers from one source.
    pub per_source: usize,
}

impl Limits {
    /// What fits a process that may open `files` files; `None`: it is below
    /// [`FILES_MIN`].
    pub fn for_files(files: u64) -> Option<Self> {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        if files < FILES_MIN {
            return None;
        }
        let total = CONNECTIONS_MAX.min(files - FILES_RESERVED);
        let strangers = STRANGERS_MAX.min(total / 2);
        Some(Self {
            total,
            strangers,
            per_source: strangers / 2,
        })
    }
}

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    room: Arc<Semaphore>,
    limits: Limits,
    strangers: Arc<Mutex<Strangers>>,
    full: Rarely,
    source_full: Rarely,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            room: Arc::new(Semaphore::new(limits.total)),
            limits,
            strangers: Arc::default(),
            full: Rarely::default(),
            source_full: Rarely::default(),
        }
    }

    /// Waits for room for one more connection.
    pub(super) async fn room(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.room.clone().try_acquire_owned() {
            return Some(permit);
        }
        if let Some(waited) = self.full.now(Instant::now()) {
            let total = self.limits.total;
            tracing::warn!(
                total,
                waited,
                "every place for a connection is taken: more agents wait until one leaves (raise the limit of open files)"
            );
        }
        self.room.clone().acquire_owned().await.ok()
    }

    /// A stranger's place; `None`: its source has enough.
    pub(super) fn take(
        &mut self,
        remote: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Option<Place> {
        let source = network_of(remote.ip());
        let taken = lock(&self.strangers).take(source, self.limits);
        let Some((number, cut)) = taken else {
            metrics::counter!("issuer_handshakes_total", "result" => "source_full").increment(1);
            if let Some(refused) = self.source_full.now(Instant::now()) {
                let per_source = self.limits.per_source;
                tracing::warn!(
                    %source,
                    per_source,
                    refused,
                    "connections are refused: their source has too many without a bot certificate"
                );
            }
            return None;
        };
        Some(Place {
            stranger: Some(Stranger {
                number,
                cut,
                pool: self.strangers.clone(),
            }),
            _permit: permit,
        })
    }
}

/// A place among the open connections. Given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    stranger: Option<Stranger>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The peer has proven to be a bot: it is no stranger any more.
    pub(super) fn proven(&mut self) {
        self.stranger = None;
    }

    /// Ready when the peer must go, to make room for another stranger.
    pub(super) fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(stranger) = &mut self.stranger else {
            return Poll::Pending;
        };
        let _ = ready!(Pin::new(&mut stranger.cut).poll(context));
        Poll::Ready(())
    }
}

#[derive(Debug)]
struct Stranger {
    number: u64,
    cut: oneshot::Receiver<()>,
    pool: Arc<Mutex<Strangers>>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        lock(&self.pool).leave(self.number);
    }
}

#[derive(Debug, Default)]
struct Strangers {
    next: u64,
    /// In the order in which they came.
    open: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    sources: HashMap<IpAddr, usize>,
}

impl Strangers {
    fn take(&mut self, source: IpAddr, limits: Limits) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.sources.get(&source).copied().unwrap_or(0) >= limits.per_source {
            return None;
        }
        if self.open.len() >= limits.strangers
            && let Some(oldest) = self.open.keys().next().copied()
            && let Some(cut) = self.leave(oldest)
        {
            metrics::counter!("issuer_strangers_cut_total").increment(1);
            // Its task may just have ended by itself.
            let _ = cut.send(());
        }
        let number = self.next;
        self.next += 1;
        let (cut, receiver) = oneshot::channel();
        self.open.insert(number, (source, cut));
        *self.sources.entry(source).or_insert(0) += 1;
        Some((number, receiver))
    }

    fn leave(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (source, cut) = self.open.remove(&number)?;
        if let Entry::Occupied(mut count) = self.sources.entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(cut)
    }
}

fn lock(pool: &Mutex<Strangers>) -> std::sync::MutexGuard<'_, Strangers> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says when a line may be logged that would else come a thousand times.
#[derive(Debug, Default)]
struct Rarely {
    told: Option<Instant>,
    untold: u64,
}

impl Rarely {
    /// How often it happened since the last line; `None`: not yet.
    fn now(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now - told < TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests;
