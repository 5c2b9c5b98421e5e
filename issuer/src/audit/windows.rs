//! A bound on what one source can make the issuer record.
//!
//! Some refusals cost their source nothing and can be repeated at will (a join
//! beyond the limit, a call by a user who may not). The first of a source is
//! recorded; those that follow within [`WINDOW`] are counted, and the next record
//! tells how many there were. Memory is bounded: when [`SOURCES_MAX`] sources are
//! known, others are not recorded until some are forgotten.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a source that was recorded is not recorded again.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How many sources are known.
pub const SOURCES_MAX: usize = 10_000;

#[derive(Debug)]
struct Window {
    opened: Instant,
    /// Since the last record.
    uncounted: u64,
}

/// Who was refused lately.
#[derive(Debug, Default)]
pub struct Windows {
    open: Mutex<HashMap<String, Window>>,
}

impl Windows {
    /// Counts a refusal. If it is to be recorded: how many it stands for, itself
    /// included.
    pub fn count(&self, source: &str, now: Instant) -> Option<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = open.get_mut(source) {
            window.uncounted += 1;
            if now.saturating_duration_since(window.opened) < WINDOW {
                return None;
            }
            window.opened = now;
            return Some(std::mem::take(&mut window.uncounted));
        }
        if open.len() >= SOURCES_MAX {
            open.retain(|_, window| now.saturating_duration_since(window.opened) < WINDOW);
        }
        if open.len() >= SOURCES_MAX {
            return None;
        }
        let window = Window {
            opened: now,
            uncounted: 0,
        };
        open.insert(source.to_owned(), window);
        Some(1)
    }
}

#[cfg(test)]
mod tests;
