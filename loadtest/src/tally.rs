//! What the workers of one thread have counted.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::{OpError, OpErrorKind, client_tls::Negotiated};

/// Counts and latencies of measured operations.
#[derive(Debug)]
pub struct Tally {
    /// Nanoseconds from when an operation was due.
    pub from_due: Histogram<u64>,
    /// Nanoseconds from when it was started.
    pub from_start: Histogram<u64>,
    /// Operations that ended well.
    pub succeeded: u64,
    /// SVIDs received.
    pub svids: u64,
    /// Failures by kind, with the first one's words.
    pub failures: BTreeMap<OpErrorKind, (u64, String)>,
    /// Full TLS handshakes.
    pub full_handshakes: u64,
    /// Resumed TLS handshakes.
    pub resumed_handshakes: u64,
    /// What the last handshake settled on (warm-up included).
    pub negotiated: Option<Negotiated>,
}

/// Latencies are kept to three digits between a microsecond and five minutes.
const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 300_000_000_000;
const DIGITS: u8 = 3;

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)?;
        Ok(Self {
            from_due: histogram.clone(),
            from_start: histogram,
            succeeded: 0,
            svids: 0,
            failures: BTreeMap::new(),
            full_handshakes: 0,
            resumed_handshakes: 0,
            negotiated: None,
        })
    }

    /// An operation ended well, this long after it was due and after it was started.
    pub fn succeed(&mut self, from_due: Duration, from_start: Duration) {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.from_due.saturating_record(nanos(from_due));
        self.from_start.saturating_record(nanos(from_start));
        self.succeeded += 1;
    }

    /// An operation failed.
    pub fn fail(&mut self, error: OpError) {
        self.fail_many(error, 1);
    }

    /// `count` operations failed alike.
    pub fn fail_many(&mut self, error: OpError, count: u64) {
        if count > 0 {
            self.failures
                .entry(error.kind)
                .or_insert((0, error.detail))
                .0 += count;
        }
    }

    /// Failures of all kinds.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.from_due.add(&other.from_due)?;
        self.from_start.add(&other.from_start)?;
        self.succeeded += other.succeeded;
        self.svids += other.svids;
        self.full_handshakes += other.full_handshakes;
        self.resumed_handshakes += other.resumed_handshakes;
        self.negotiated = other.negotiated.or(self.negotiated.take());
        for (kind, (count, detail)) in other.failures {
            self.fail_many(OpError { kind, detail }, count);
        }
        Ok(())
    }
}
