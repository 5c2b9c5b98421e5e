//! When the next operation is due.
//!
//! In a closed loop it is due at once. At a fixed rate the schedule is written down beforehand:
//! operation *k* is due at `start + k / rate`, whatever the target does. A pacer wakes one free
//! worker for each due operation; if none is free the operation waits, and its latency runs from
//! when it was due. That is what corrects for coordinated omission: a stall of the target delays
//! every operation that fell due meanwhile, not only the one in flight.
//!
//! tokio's timer ticks in milliseconds, far coarser than what is measured; the pacer sleeps on a
//! `timerfd`.

use std::{
    cell::Cell,
    io,
    os::fd::AsFd,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{net::unix::pipe, sync::Semaphore};

/// Hands out the moments at which operations are due, to the workers of one thread.
#[derive(Debug, Clone)]
pub enum Pace {
    /// Each worker goes on as soon as it is free.
    Closed,
    /// A fixed rate.
    Open(Rc<Schedule>),
}

impl Pace {
    /// Waits for the next operation and says when it was due.
    pub async fn next(&self) -> Instant {
        match self {
            Self::Closed => Instant::now(),
            Self::Open(schedule) => schedule.next().await,
        }
    }
}

/// A fixed-rate schedule.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    interval: Duration,
    taken: Cell<u64>,
    /// One permit for each operation due and not taken.
    due: Semaphore,
}

impl Schedule {
    /// Operations due at `first`, `first + interval`, …
    pub fn new(first: Instant, interval: Duration) -> Rc<Self> {
        Rc::new(Self {
            start: first,
            interval: interval.max(Duration::from_nanos(1)),
            taken: Cell::new(0),
            due: Semaphore::new(0),
        })
    }

    async fn next(&self) -> Instant {
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        let k = self.taken.replace(self.taken.get() + 1);
        self.at(k)
    }

    /// Announces operations as they fall due; returns at `until`, after which each of `workers`
    /// is woken once more to see that it is over.
    pub async fn announce(&self, until: Instant, workers: usize) -> io::Result<()> {
        let timer = Timer::new()?;
        let mut announced = 0;
        loop {
            let next = self.at(announced);
            if next >= until {
                break;
            }
            timer.sleep_until(next).await?;
            let due = self.due_before(Instant::now().min(until));
            self.due
                .add_permits(usize::try_from(due - announced).unwrap_or(usize::MAX));
            announced = due;
        }
        timer.sleep_until(until).await?;
        self.release(workers);
        Ok(())
    }

    /// Wakes each of `workers` once, to see that it is over.
    pub fn release(&self, workers: usize) {
        self.due.add_permits(workers);
    }

    /// How many operations fell due in `from..until` and were never taken by a worker.
    pub fn untaken(&self, from: Instant, until: Instant) -> u64 {
        let first = self.taken.get().max(self.due_before(from));
        self.due_before(until).saturating_sub(first)
    }

    fn at(&self, k: u64) -> Instant {
        let nanos = self.interval.as_nanos() * u128::from(k);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many operations are due before `now`.
    fn due_before(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos();
        u64::try_from(passed.div_ceil(self.interval.as_nanos())).unwrap_or(u64::MAX)
    }
}

/// A one-shot timer of nanosecond resolution.
///
/// A `timerfd` is waited for and read just like a pipe, and tokio's pipe is the way to do that
/// without `unsafe`.
#[derive(Debug)]
struct Timer(pipe::Receiver);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        pipe::Receiver::from_owned_fd_unchecked(timer).map(Self)
    }

    /// Returns a little after `at`, never before.
    async fn sleep_until(&self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // One operation after the other may be due already: let the workers run.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let it_value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()) + 1,
        };
        let spec = Itimerspec {
            it_interval: zero,
            it_value: normal(it_value),
        };
        timerfd_settime(self.0.as_fd(), TimerfdTimerFlags::empty(), &spec)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(drop),
            }
        }
    }
}

fn normal(t: Timespec) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    Timespec {
        tv_sec: t.tv_sec.saturating_add(t.tv_nsec / SECOND),
        tv_nsec: t.tv_nsec % SECOND,
    }
}

#[cfg(test)]
mod tests;
