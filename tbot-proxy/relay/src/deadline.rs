//! The deadlines of a relay: one timer, re-armed when it fires and not when bytes flow.
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Deadlines of a relay. `None`: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadlines {
    /// Longest time without a byte in either direction.
    pub idle: Option<Duration>,
    /// Longest time from one direction's end to the other's, without a byte.
    pub half_close: Option<Duration>,
}

/// Which deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    Idle,
    HalfClose,
}

/// The clock of one relay.
pub(crate) struct Clock {
    deadlines: Deadlines,
    last_byte: Instant,
    half_closed: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// None when nothing is bounded.
    pub(crate) fn new(deadlines: Deadlines) -> Option<Self> {
        if deadlines.idle.is_none() && deadlines.half_close.is_none() {
            return None;
        }
        Some(Self {
            deadlines,
            last_byte: Instant::now(),
            half_closed: false,
            sleep: None,
        })
    }

    /// Bytes have moved in this poll.
    pub(crate) fn moved(&mut self) {
        self.last_byte = Instant::now();
    }

    /// One direction has ended: from now the other bound holds as well, and may be the nearer one.
    pub(crate) fn half_closed(&mut self) {
        if !self.half_closed {
            self.half_closed = true;
            self.moved();
            self.sleep = None;
        }
    }

    /// The bound in force and which it is.
    fn bound(&self) -> Option<(Duration, Passed)> {
        let idle = self.deadlines.idle.map(|bound| (bound, Passed::Idle));
        let half_close = self.deadlines.half_close.filter(|_| self.half_closed);
        let half_close = half_close.map(|bound| (bound, Passed::HalfClose));
        half_close
            .into_iter()
            .chain(idle)
            .min_by_key(|(bound, _)| *bound)
    }

    /// Ready when a deadline has passed since the last byte.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<Passed> {
        let Some((bound, passed)) = self.bound() else {
            return Poll::Pending;
        };
        loop {
            let due = self.last_byte + bound;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
            ready!(sleep.as_mut().poll(cx));
            if due <= sleep.deadline() {
                return Poll::Ready(passed);
            }
            sleep.as_mut().reset(due);
        }
    }
}
