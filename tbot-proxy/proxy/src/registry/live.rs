//! What of a connection others may act on.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use relay::Counters;
use tokio::{task::AbortHandle, time::Instant};

use crate::close_reason::Close;

/// One connection, as far as others may act on it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) number: u64,
    pub(crate) entered: Instant,
    pub(crate) counters: Arc<Counters>,
    told: Told,
    task: Mutex<Task>,
}

/// What of the counters is in the metrics already.
#[derive(Debug, Default)]
struct Told {
    to_plain: AtomicU64,
    to_tls: AtomicU64,
}

/// Plaintext bytes, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bytes {
    pub(crate) to_plain: u64,
    pub(crate) to_tls: u64,
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, more: Self) {
        self.to_plain += more.to_plain;
        self.to_tls += more.to_tls;
    }
}

#[derive(Debug, Default)]
struct Task {
    abort: Option<AbortHandle>,
    cut: Option<Close>,
}

impl Live {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            entered: Instant::now(),
            counters: Arc::default(),
            told: Told::default(),
            task: Mutex::default(),
        }
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes {
            to_plain: self.counters.tls_to_plain.load(Ordering::Relaxed),
            to_tls: self.counters.plain_to_tls.load(Ordering::Relaxed),
        }
    }

    /// Bytes since the last call, whoever made it: none is told twice, for of two callers at one time each gets
    /// what lies above the other's mark.
    pub(crate) fn take_untold(&self) -> Bytes {
        let since = |told: &AtomicU64, now: u64| {
            if told.load(Ordering::Relaxed) == now {
                return 0;
            }
            now.saturating_sub(told.fetch_max(now, Ordering::Relaxed))
        };
        let now = self.bytes();
        Bytes {
            to_plain: since(&self.told.to_plain, now.to_plain),
            to_tls: since(&self.told.to_tls, now.to_tls),
        }
    }

    /// Tells which task serves the connection. One that was cut before it is known is aborted now.
    pub(crate) fn attach(&self, abort: AbortHandle) {
        let mut task = self.lock();
        if task.cut.is_some() {
            abort.abort();
        }
        task.abort = Some(abort);
    }

    /// Ends the connection for this reason; the first reason holds. Returns whether it is this one.
    pub(super) fn cut(&self, close: Close) -> bool {
        let mut task = self.lock();
        if task.cut.is_some() {
            return false;
        }
        task.cut = Some(close);
        if let Some(abort) = &task.abort {
            abort.abort();
        }
        true
    }

    /// Why it was cut, if it was.
    pub(crate) fn take_cut(&self) -> Option<Close> {
        self.lock().cut.take()
    }

    fn lock(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
