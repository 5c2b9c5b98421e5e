//! A bound on failed joins from one source, so that guessing tokens, or an agent
//! gone wild with a wrong one, costs the store and the audit log little.
//!
//! Each source (an IPv4 address, or an IPv6 /64) has a bucket of
//! [`BURST`] failures that refills by one every [`REFILL`]. Successful joins cost
//! nothing. Memory is bounded: buckets that are full again are forgotten, and
//! when [`SOURCES_MAX`] are in use new sources share one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures at once.
pub const BURST: u32 = 20;
/// Time until one more failure is allowed.
pub const REFILL: Duration = Duration::from_secs(3);
/// How many sources are told apart.
pub const SOURCES_MAX: usize = 10_000;

/// The buckets.
#[derive(Debug, Default)]
pub struct FailedJoins {
    full_again: Mutex<HashMap<IpAddr, Instant>>,
}

impl FailedJoins {
    /// Whether a join from `source` may be tried.
    pub fn admits(&self, source: IpAddr, now: Instant) -> bool {
        let buckets = self
            .full_again
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = bucket(&buckets, source);
        buckets.get(&key).is_none_or(|full_again| {
            full_again.saturating_duration_since(now) + REFILL <= REFILL * BURST
        })
    }

    /// Counts a failure.
    pub fn failed(&self, source: IpAddr, now: Instant) {
        let mut buckets = self
            .full_again
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SOURCES_MAX {
            buckets.retain(|_, full_again| *full_again > now);
        }
        let key = bucket(&buckets, source);
        let full_again = buckets.entry(key).or_insert(now);
        *full_again = (*full_again).max(now) + REFILL;
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

fn bucket(buckets: &HashMap<IpAddr, Instant>, source: IpAddr) -> IpAddr {
    let key = network_of(source);
    if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&key) {
        return IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    }
    key
}

#[cfg(test)]
mod tests;
