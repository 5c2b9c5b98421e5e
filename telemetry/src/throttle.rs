//! A bound on lines of the log that others can cause.
//!
//! Whoever may talk to a process may have it complain, as often as they like. Of such a
//! kind of line some are written in each while; the others are counted, and the count
//! goes with the next line of the kind, so that nothing is passed over in silence.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much is written of one kind of line: at most so many in each while.
#[derive(Debug)]
pub struct Throttle {
    most: u32,
    each: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the first line of this while was written.
    since: Option<Instant>,
    written: u32,
    held_back: u64,
}

impl Throttle {
    /// Ten lines a minute.
    pub const fn ten_a_minute() -> Self {
        Self::new(10, Duration::from_secs(60))
    }

    /// At most `most` lines in each while.
    pub const fn new(most: u32, each: Duration) -> Self {
        Self {
            most,
            each,
            state: Mutex::new(State {
                since: None,
                written: 0,
                held_back: 0,
            }),
        }
    }

    /// `None`: the line is not to be written, and counted. Else how many were held back
    /// since the last one, for its field `held_back`.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since| now.saturating_duration_since(since) >= self.each;
        if state.since.is_none_or(is_over) {
            (state.since, state.written) = (Some(now), 0);
        }
        if state.written >= self.most {
            state.held_back += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests;
