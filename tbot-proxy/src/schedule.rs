//! When an identity is renewed.
//!
//! At the time that the issuer asked for, else at half of its life, moved by up
//! to a tenth either way so that a fleet that started together does not renew
//! together. After a failure: exponential back-off from one second to one
//! minute, jittered, and never so long that the identity would expire meanwhile.
//!
//! Times are of the wall clock, as certificates are. A clock that steps forward makes
//! due what it steps over; one that steps back, before the moment at which the time
//! was set, makes due whatever was set by it: it was computed with a clock that was wrong.

use std::time::{Duration, SystemTime};

use rand::Rng;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Exponential back-off with jitter: 1 s, 2 s, 4 s … 60 s, each times 0.5 to 1.
#[derive(Debug, Default, Clone)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure; how long to wait.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = FIRST_DELAY.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let delay = doubled.min(LONGEST_DELAY);
        delay.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// As [`next`](Self::next), from the longest delay on: for what an operator has to mend.
    pub(crate) fn next_slow(&mut self) -> Duration {
        self.failures = self.failures.max(6);
        self.next()
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Sleeps, or for ever if there is nothing to wait for.
pub(crate) async fn sleep(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// When the issuer wants it renewed.
    pub(crate) renew_at: Option<SystemTime>,
}

impl Life {
    /// When to renew, before jitter.
    pub(crate) fn renewal(&self) -> SystemTime {
        let half = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
            / 2;
        self.renew_at
            .filter(|at| *at < self.not_after)
            .unwrap_or(self.not_before + half)
    }
}

/// When to act next on one identity.
#[derive(Debug)]
pub(crate) struct Schedule {
    life: Option<Life>,
    due: SystemTime,
    /// When `due` was set.
    set_at: SystemTime,
    backoff: Backoff,
}

impl Schedule {
    /// Nothing is held: due now.
    pub(crate) fn empty(now: SystemTime) -> Self {
        Self {
            life: None,
            due: now,
            set_at: now,
            backoff: Backoff::default(),
        }
    }

    /// An identity of this life is held, and is to be renewed now.
    pub(crate) fn overdue(life: Life, now: SystemTime) -> Self {
        Self {
            life: Some(life),
            ..Self::empty(now)
        }
    }

    /// An identity of this life is held, and is to be renewed in its time.
    pub(crate) fn held(life: Life, now: SystemTime) -> Self {
        let mut schedule = Self::empty(now);
        schedule.renewed(life, now);
        schedule
    }

    /// An identity of this life has come.
    pub(crate) fn renewed(&mut self, life: Life, now: SystemTime) {
        self.backoff.reset();
        let wait = life.renewal().duration_since(now).unwrap_or_default();
        self.set(now + wait.mul_f64(rand::rng().random_range(0.9..=1.1)), now);
        self.life = Some(life);
    }

    /// An attempt has failed; how long to wait. `slow`: trying soon is no use.
    pub(crate) fn failed(&mut self, now: SystemTime, slow: bool) -> Duration {
        let mut delay = if slow {
            self.backoff.next_slow()
        } else {
            self.backoff.next()
        };
        if let Some(left) = self.left(now) {
            delay = delay.min((left / 2).max(FIRST_DELAY));
        }
        self.set(now + delay, now);
        delay
    }

    /// Renew within this window, if not sooner.
    pub(crate) fn hasten(&mut self, within: Duration, now: SystemTime) {
        let at = now + within.mul_f64(rand::rng().random_range(0.0..=1.0));
        self.bring_forward(at, now);
    }

    /// It has expired and is gone: due within a minute, if not sooner.
    pub(crate) fn lost(&mut self, now: SystemTime) {
        self.life = None;
        self.bring_forward(now + LONGEST_DELAY, now);
    }

    fn bring_forward(&mut self, at: SystemTime, now: SystemTime) {
        let due = if self.is_due(now) { now } else { self.due };
        self.set(due.min(at), now);
    }

    fn set(&mut self, due: SystemTime, now: SystemTime) {
        (self.due, self.set_at) = (due, now);
    }

    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        now >= self.due || now < self.set_at
    }

    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        self.life.is_some_and(|life| now >= life.not_after)
    }

    fn left(&self, now: SystemTime) -> Option<Duration> {
        self.life?.not_after.duration_since(now).ok()
    }

    /// Waits until it is due or expires, or for half a minute: a clock that was
    /// set is noticed within that time.
    pub(crate) async fn wait(&self, now: SystemTime) {
        let until_due = if self.is_due(now) {
            Duration::ZERO
        } else {
            self.due.duration_since(now).unwrap_or_default()
        };
        tokio::time::sleep(until_due.min(self.until_expiry(now))).await;
    }

    /// As [`wait`](Self::wait), when being due is not enough to act.
    pub(crate) async fn wait_for_expiry(&self, now: SystemTime) {
        tokio::time::sleep(self.until_expiry(now)).await;
    }

    /// Waits until there may be something to do: until it expires, or until it is due if
    /// that was not so at `now`. What is due then waits for something else.
    pub(crate) async fn wait_for_more(&self, now: SystemTime) {
        match self.is_due(now) {
            true => self.wait_for_expiry(now).await,
            false => self.wait(now).await,
        }
    }

    /// Waits until it has expired; for ever if there is none.
    pub(crate) async fn expiry(&self) {
        if self.life.is_none() {
            std::future::pending::<()>().await;
        }
        loop {
            let now = SystemTime::now();
            if self.has_expired(now) {
                return;
            }
            self.wait_for_expiry(now).await;
        }
    }

    fn until_expiry(&self, now: SystemTime) -> Duration {
        const LONGEST_SLEEP: Duration = Duration::from_secs(30);
        self.left(now)
            .map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP))
    }
}

#[cfg(test)]
mod tests;
