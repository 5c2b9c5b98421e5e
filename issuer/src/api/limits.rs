//! How much one caller may ask for, so that a bot gone wild costs the others nothing.
//!
//! Each bot, and each of its instances, has a bucket of SVIDs that refills at a
//! constant rate (GCRA: one instant a bucket, "when it is full again"). A call is let
//! in if both buckets hold at least one, and is then charged with all that it asks
//! for: a large batch leaves a debt that later calls wait for. An instance also has a
//! bound on its calls under way and on its streams, over all its connections: that is
//! what keeps its share of the queue to the writer small, whatever the rates are.
//!
//! Callers are bots by their certificates, so that nobody can charge another.
//! Memory is bounded: what is full again is forgotten, and when [`KEYS_MAX`] callers
//! are known one is forgotten all the same (it gets a full bucket). Strangers may
//! only join, which has a bound of its own ([`crate::join::limit`]). Operators have
//! no limit.
//!
//! Our own and not `governor`: that one does not allow a debt, sweeps its keys only
//! when told to, and cannot look at two buckets before charging either.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{access::Caller, config::LimitSettings};

/// How many bots, and how many instances, are told apart.
pub const KEYS_MAX: usize = 20_000;
/// When to come back for a place that is held by calls of one's own.
const RETRY_IN_FLIGHT: Duration = Duration::from_millis(100);

/// What a call takes while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A call with one answer, charged with one SVID as it begins.
    Call,
    /// A call with one answer that gets nothing signed.
    Light,
    /// A stream.
    Stream,
}

/// The limits.
#[derive(Debug, Default)]
pub struct Limits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settings: LimitSettings,
    /// By name of the bot.
    bots: Buckets,
    /// By SPIFFE ID of the instance.
    instances: Buckets,
    under_way: HashMap<Box<str>, UnderWay>,
}

#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    calls: u32,
    streams: u32,
}

impl Limits {
    /// Puts settings in force. What was charged stays charged.
    pub fn set(&self, settings: LimitSettings) {
        self.lock().settings = settings;
    }

    /// Lets a call in, or says why not. Its place is given back by dropping it.
    pub fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        weight: Weight,
        now: Instant,
    ) -> Result<Slot, Limited> {
        let mut state = self.lock();
        let settings = state.settings;
        let id = caller.id.as_str();
        let open = state.under_way.get(id).copied().unwrap_or_default();
        let (is_full, limit, most) = match weight {
            Weight::Stream => (
                open.streams >= settings.streams_per_instance,
                Limit::Streams,
                settings.streams_per_instance,
            ),
            Weight::Call | Weight::Light => (
                open.calls >= settings.calls_per_instance,
                Limit::Calls,
                settings.calls_per_instance,
            ),
        };
        if is_full {
            return Err(Limited::new(limit, most, RETRY_IN_FLIGHT));
        }
        if weight == Weight::Call {
            state.charge(caller, 1, now)?;
        }
        let entry = state.under_way.entry(id.into()).or_default();
        match weight {
            Weight::Stream => entry.streams += 1,
            Weight::Call | Weight::Light => entry.calls += 1,
        }
        Ok(Slot {
            limits: self.clone(),
            id: id.into(),
            weight,
        })
    }

    /// Charges a call that was let in with more SVIDs than the one that every call
    /// is charged with. Refused only if the caller is in debt by now.
    pub fn charge(&self, caller: &Caller, more: u32, now: Instant) -> Result<(), Limited> {
        match more {
            0 => Ok(()),
            more => self.lock().charge(caller, more, now),
        }
    }

    /// Charges without refusing: for what was found only while it was done.
    pub fn owe(&self, caller: &Caller, more: u32, now: Instant) {
        if more > 0 {
            self.lock().owe(caller, more, now);
        }
    }

    fn leave(&self, id: &str, weight: Weight) {
        let mut state = self.lock();
        let Some(open) = state.under_way.get_mut(id) else {
            return;
        };
        match weight {
            Weight::Stream => open.streams = open.streams.saturating_sub(1),
            Weight::Call | Weight::Light => open.calls = open.calls.saturating_sub(1),
        }
        if open.calls == 0 && open.streams == 0 {
            state.under_way.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn charge(&mut self, caller: &Caller, count: u32, now: Instant) -> Result<(), Limited> {
        let (bot, id) = (caller.bot_name.as_str(), caller.id.as_str());
        let (of_bot, of_instance) = self.rates();
        // Both are looked at before either is charged.
        let in_debt = |limit: Limit, rate: Rate| {
            move |wait: Duration| Limited::new(limit, rate.per_second, wait)
        };
        self.instances
            .check(id, of_instance, now)
            .map_err(in_debt(Limit::Instance, of_instance))?;
        self.bots
            .check(bot, of_bot, now)
            .map_err(in_debt(Limit::Bot, of_bot))?;
        self.owe(caller, count, now);
        Ok(())
    }

    fn owe(&mut self, caller: &Caller, count: u32, now: Instant) {
        let (of_bot, of_instance) = self.rates();
        self.instances
            .charge(caller.id.as_str(), of_instance, count, now);
        self.bots.charge(&caller.bot_name, of_bot, count, now);
    }

    /// Of a bot, of an instance.
    fn rates(&self) -> (Rate, Rate) {
        let settings = &self.settings;
        let of_bot = Rate {
            per_second: settings.issue_per_second_per_bot,
            burst: settings.issue_burst_per_bot,
        };
        let of_instance = Rate {
            per_second: settings.issue_per_second_per_instance,
            burst: settings.issue_burst_per_instance,
        };
        (of_bot, of_instance)
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    fn time_for(self, count: u32) -> Duration {
        Duration::from_secs_f64(f64::from(count) / f64::from(self.per_second.max(1)))
    }
}

/// When each is full again; who is not in it is full.
#[derive(Debug, Default)]
struct Buckets(HashMap<Box<str>, Instant>);

impl Buckets {
    /// An error tells how long until one is there.
    fn check(&self, key: &str, rate: Rate, now: Instant) -> Result<(), Duration> {
        let Some(full_again) = self.0.get(key) else {
            return Ok(());
        };
        let missing = full_again.saturating_duration_since(now) + rate.time_for(1);
        match missing.checked_sub(rate.time_for(rate.burst)) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    fn charge(&mut self, key: &str, rate: Rate, count: u32, now: Instant) {
        let cost = rate.time_for(count);
        if let Some(full_again) = self.0.get_mut(key) {
            *full_again = (*full_again).max(now) + cost;
            return;
        }
        if self.0.len() >= KEYS_MAX {
            self.0.retain(|_, full_again| *full_again > now);
        }
        if self.0.len() >= KEYS_MAX
            && let Some(any) = self.0.keys().next().cloned()
        {
            self.0.remove(&any);
        }
        self.0.insert(key.into(), now + cost);
    }
}

/// The place of a call under way.
#[derive(Debug)]
pub struct Slot {
    limits: Arc<Limits>,
    id: Box<str>,
    weight: Weight,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limits.leave(&self.id, self.weight);
    }
}

/// Which limit a caller has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// SVIDs of its bot.
    Bot,
    /// SVIDs of the instance.
    Instance,
    /// Calls of the instance.
    Calls,
    /// Streams of the instance.
    Streams,
}

impl Limit {
    /// Name of the setting, below `limits`.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Bot => "issue_per_second_per_bot",
            Self::Instance => "issue_per_second_per_instance",
            Self::Calls => "calls_per_instance",
            Self::Streams => "streams_per_instance",
        }
    }
}

/// A caller asks for more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which limit.
    pub limit: Limit,
    /// Its value.
    pub most: u32,
    /// When to come back.
    pub wait: Duration,
}

impl Limited {
    fn new(limit: Limit, most: u32, wait: Duration) -> Self {
        Self { limit, most, wait }
    }

    /// What the caller learns: `RESOURCE_EXHAUSTED`, with `google.rpc.RetryInfo` and
    /// `retry-after` (whole seconds).
    pub fn status(&self) -> Status {
        let details = ErrorDetails::with_retry_info(Some(self.wait));
        let mut status =
            Status::with_error_details(Code::ResourceExhausted, self.to_string(), details);
        let seconds = self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0);
        status
            .metadata_mut()
            .insert("retry-after", MetadataValue::from(seconds.max(1)));
        status
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (most, setting) = (self.most, self.limit.setting());
        match self.limit {
            Limit::Bot => write!(f, "this bot asks for more than {most} SVIDs a second")?,
            Limit::Instance => {
                write!(
                    f,
                    "this bot instance asks for more than {most} SVIDs a second"
                )?;
            }
            Limit::Calls => write!(f, "this bot instance has {most} calls under way")?,
            Limit::Streams => write!(f, "this bot instance has {most} streams open")?,
        }
        let wait = self.wait.as_secs_f64();
        write!(
            f,
            " (`limits.{setting}` of the issuer): try again in {wait:.1} s"
        )
    }
}

#[cfg(test)]
mod tests;
