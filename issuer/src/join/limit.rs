//! A bound on failed joins from one source, so that guessing tokens, or an agent
//! gone wild with a wrong one, costs the store and the audit log little.
//!
//! Each source (an IPv4 address, or an IPv6 /64) has a bucket of
//! [`BURST`] failures that refills by one every [`REFILL`]. A join is charged
//! before the store is asked and refunded unless it failed, so that joins in
//! parallel are bounded as those in a row are. Joins that only find the bucket
//! charged by others under way wait for these: a fleet that starts behind one
//! address joins without a refusal. Memory is bounded: buckets that are full again
//! are forgotten, and when [`SOURCES_MAX`] are in use a new source takes the place
//! of the one that is nearest to full.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Failures at once.
pub const BURST: u32 = 20;
/// Time until one more failure is allowed.
pub const REFILL: Duration = Duration::from_secs(3);
/// How many sources are told apart.
pub const SOURCES_MAX: usize = 10_000;

/// The buckets.
#[derive(Debug, Default)]
pub struct FailedJoins {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    /// When all failures so far are forgotten.
    full_again: Instant,
    /// Joins that are charged and not decided.
    under_way: u32,
    decided: Arc<Notify>,
}

/// What an attempt to join finds.
#[derive(Debug)]
enum Verdict {
    Charged,
    /// Others under way decide whether there is room.
    Wait(Arc<Notify>),
    Refused,
}

/// A join that is under way; a failure unless it is refunded.
#[derive(Debug)]
#[must_use = "dropped, it counts as a failure"]
pub struct Charge<'a> {
    limit: &'a FailedJoins,
    source: IpAddr,
    failed: bool,
}

impl Charge<'_> {
    /// The join did not fail, or not by its own fault.
    pub fn refund(mut self) {
        self.failed = false;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.limit.settle(self.source, self.failed, Instant::now());
    }
}

impl FailedJoins {
    /// Charges a join from `source`; `None`: too many failed.
    pub async fn charge(&self, source: IpAddr) -> Option<Charge<'_>> {
        let source = network_of(source);
        let mut woken_by = None::<Arc<Notify>>;
        loop {
            match self.try_charge(source, Instant::now()) {
                Verdict::Charged => {
                    return Some(Charge {
                        limit: self,
                        source,
                        failed: true,
                    });
                }
                Verdict::Wait(decided) => {
                    decided.notified().await;
                    woken_by = Some(decided);
                }
                Verdict::Refused => {
                    // The next that waits is to learn it too.
                    if let Some(decided) = woken_by {
                        decided.notify_one();
                    }
                    return None;
                }
            }
        }
    }

    fn try_charge(&self, source: IpAddr, now: Instant) -> Verdict {
        let mut buckets = self.lock();
        if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&source) {
            make_room(&mut buckets, now);
        }
        let bucket = buckets.entry(source).or_insert_with(|| Bucket {
            full_again: now,
            under_way: 0,
            decided: Arc::default(),
        });
        let failed = bucket.full_again.saturating_duration_since(now);
        let fits = |more: u32| failed + REFILL * more <= REFILL * BURST;
        if fits(bucket.under_way + 1) {
            bucket.under_way += 1;
            return Verdict::Charged;
        }
        match fits(1) {
            true => Verdict::Wait(bucket.decided.clone()),
            false => Verdict::Refused,
        }
    }

    fn settle(&self, source: IpAddr, failed: bool, now: Instant) {
        let mut buckets = self.lock();
        let Some(bucket) = buckets.get_mut(&source) else {
            return;
        };
        bucket.under_way = bucket.under_way.saturating_sub(1);
        if failed {
            bucket.full_again = bucket.full_again.max(now) + REFILL;
        }
        bucket.decided.notify_one();
        if bucket.is_full(now) {
            buckets.remove(&source);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// Nobody is under way, or waits for those who are.
    fn is_idle(&self) -> bool {
        self.under_way == 0 && Arc::strong_count(&self.decided) == 1
    }

    fn is_full(&self, now: Instant) -> bool {
        self.is_idle() && self.full_again <= now
    }
}

/// Forgets what is full again, else the one that will be first. A bucket with joins
/// under way stays: these are fewer than connections.
fn make_room(buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| !bucket.is_full(now));
    if buckets.len() < SOURCES_MAX {
        return;
    }
    let idle = buckets.iter().filter(|(_, bucket)| bucket.is_idle());
    let first = idle.min_by_key(|(_, bucket)| bucket.full_again);
    if let Some(source) = first.map(|(source, _)| *source) {
        buckets.remove(&source);
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests;
