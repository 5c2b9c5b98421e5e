//! The measured window: when it begins and ends, how many operations it takes, and the totals
//! that are read together with CPU time at its edges.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Where an operation lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the window: done, not counted.
    WarmUp,
    /// In the window.
    Measured,
    /// After it, or the count is used up: not to be done.
    Over,
}

/// One run's window, shared by its workers.
#[derive(Debug)]
pub struct Window {
    start: Instant,
    measure_from: Instant,
    until: Instant,
    /// Longest time for one operation.
    pub op_timeout: Duration,
    /// Whether it was ended before its time.
    ended: AtomicBool,
    /// Measured operations still to be handed out; `u64::MAX`: no bound.
    remaining: AtomicU64,
    /// Operations that have ended well, warm-up included.
    completed: AtomicU64,
    /// Payload bytes carried, warm-up included.
    bytes: AtomicU64,
    /// SVIDs received, warm-up included.
    svids: AtomicU64,
    /// Payload bytes at which a bulk run ends; `u64::MAX`: no bound.
    byte_limit: u64,
}

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Before the window.
    pub warmup: Duration,
    /// Of the window (always bounded).
    pub duration: Duration,
    /// Measured operations at most.
    pub count: Option<u64>,
    /// Payload bytes at most (bulk), warm-up included.
    pub bytes: Option<u64>,
    /// Longest time for one operation.
    pub op_timeout: Duration,
}

impl Window {
    /// A window whose warm-up begins at `start`.
    pub fn new(start: Instant, bounds: Bounds) -> Self {
        let measure_from = start + bounds.warmup;
        Self {
            start,
            measure_from,
            until: measure_from + bounds.duration,
            op_timeout: bounds.op_timeout,
            ended: AtomicBool::new(false),
            remaining: AtomicU64::new(bounds.count.unwrap_or(u64::MAX)),
            completed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            svids: AtomicU64::new(0),
            byte_limit: bounds.bytes.unwrap_or(u64::MAX),
        }
    }

    /// Begin of the warm-up.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Begin of the measured part.
    pub fn measure_from(&self) -> Instant {
        self.measure_from
    }

    /// End of the measured part.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Claims the operation that is due at `intended`.
    pub fn claim(&self, intended: Instant) -> Phase {
        if intended >= self.until || self.bytes() >= self.byte_limit || self.is_ended() {
            return Phase::Over;
        }
        if intended < self.measure_from {
            return Phase::WarmUp;
        }
        let taken = self
            .remaining
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| match left {
                0 => None,
                u64::MAX => Some(u64::MAX),
                left => Some(left - 1),
            });
        match taken {
            Ok(_) => Phase::Measured,
            Err(_) => Phase::Over,
        }
    }

    /// Ends it before its time: operations under way are finished, no other is begun.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended before its time.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether a bound on the count is used up.
    pub fn count_used_up(&self) -> bool {
        self.remaining.load(Ordering::Relaxed) == 0
    }

    /// One more operation has ended well.
    pub fn complete(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }

    /// More payload bytes were carried.
    pub fn carry(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More SVIDs were received.
    pub fn receive(&self, svids: u64) {
        self.svids.fetch_add(svids, Ordering::Relaxed);
    }

    /// SVIDs so far.
    pub fn svids(&self) -> u64 {
        self.svids.load(Ordering::Relaxed)
    }

    /// Operations that have ended well so far.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Payload bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
