//! The life of a key: prepared, active, retired, removed. A pure function of the stored
//! keys and the time; [`super::rotation`] carries out what it says.
//!
//! For a key of life *L* (from its making to its `not_after`):
//!
//! | when | what | why |
//! |---|---|---|
//! | ⅔ *L* | its successor is prepared: in the trust bundle, signs nothing | FE-01 |
//! | 5 refresh hints later, at least *L*/90 | the successor is activated, it retires | FE-01 asks for 3 to 5 |
//! | when the longest life of what it signed is over, at the latest at its `not_after` | it leaves the bundle | FE-02 |
//!
//! With the default of 90 days: prepared after 60, active on the 61st, and the CA before
//! it is gone 14 days later. What the old CA signed on its last day lives for its whole
//! time, for nothing is signed in a key's last quarter.
//!
//! A retired audit key stays listed for good, as checkpoints that it signed are to be
//! verified for good; only its private part is wiped.

use std::time::{Duration, SystemTime};

use super::{KeyState, KeyUse, StoredAuthority};

/// Bounds of the life of a key, `ca_ttl`.
pub const LIFE_MIN: Duration = Duration::from_secs(30);
/// See [`LIFE_MIN`].
pub const LIFE_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Longest life of an X.509 SVID (a `workload_identity` cannot have more).
const X509_LONGEST: Duration = Duration::from_secs(14 * 24 * 3600);
/// Longest life of a JWT- or WIT-SVID.
const TOKEN_LONGEST: Duration = Duration::from_secs(24 * 3600);
/// An issuer that shares the store learns of a step a little later.
const SLACK: Duration = Duration::from_secs(300);
/// Clocks of issuers that share a store differ by less.
const CLOCK_STEP: Duration = Duration::from_secs(600);
/// A key that was retired is kept at least this long: the clock may have been wrong.
const REGRET: Duration = Duration::from_secs(24 * 3600);
/// Longest refresh hint.
const HINT_MAX: Duration = Duration::from_secs(300);

/// What the operator decides about keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    /// Life of a key that is made now.
    pub life: Duration,
    /// Whether WIT-SVIDs are switched on.
    pub wit: bool,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            life: super::CA_LIFE,
            wit: false,
        }
    }
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a key in this state.
    Create(KeyUse, KeyState),
    /// A prepared key begins to sign.
    Activate(String),
    /// An active key ceases to sign.
    Retire(String),
    /// A key leaves the bundle, and the store.
    Remove(String),
    /// The private part of an audit key is wiped.
    Wipe(String),
}

impl Lifecycle {
    /// How often consumers of the bundle should ask again (TB-04): every 5 minutes, more
    /// often where keys are short-lived.
    pub fn refresh_hint(&self) -> Duration {
        Duration::from_secs((self.life.as_secs() / 100).max(1)).min(HINT_MAX)
    }

    /// How long a key is published before it signs.
    pub fn publication(&self) -> Duration {
        (self.refresh_hint() * 5).max(self.life / 90)
    }

    /// The uses that have keys.
    pub fn uses(&self) -> impl Iterator<Item = KeyUse> {
        let wit = self.wit;
        KeyUse::ALL
            .into_iter()
            .filter(move |key_use| wit || *key_use != KeyUse::Wit)
    }

    /// What is due at `now`. After these steps there may be more: ask again.
    pub fn due(&self, keys: &[StoredAuthority], now: SystemTime) -> Vec<Step> {
        let mut steps = Vec::new();
        for key_use in KeyUse::ALL {
            let keys: Vec<_> = keys.iter().filter(|key| key.key_use == key_use).collect();
            // What is switched off is left as it is (see `at_start`), without successor.
            if self.uses().any(|it| it == key_use) {
                self.succession(key_use, &keys, now, &mut steps);
            }
            for key in in_state(&keys, KeyState::Retired) {
                match key_use {
                    _ if now < removal(key) => {}
                    KeyUse::Audit if key.sealed_key.is_empty() => {}
                    KeyUse::Audit => steps.push(Step::Wipe(key.key_id.clone())),
                    _ => steps.push(Step::Remove(key.key_id.clone())),
                }
            }
        }
        steps
    }

    /// Who signs, and who comes next.
    fn succession(
        &self,
        key_use: KeyUse,
        keys: &[&StoredAuthority],
        now: SystemTime,
        steps: &mut Vec<Step>,
    ) {
        let active = self.signer(keys, now);
        let others = in_state(keys, KeyState::Active)
            .filter(|key| active.is_none_or(|active| active.key_id != key.key_id));
        steps.extend(others.map(|key| Step::Retire(key.key_id.clone())));
        let prepared = newest(in_state(keys, KeyState::Prepared).filter(|key| now < key.not_after));
        let stale = in_state(keys, KeyState::Prepared)
            .filter(|key| prepared.is_none_or(|prepared| prepared.key_id != key.key_id));
        steps.extend(stale.map(|key| Step::Remove(key.key_id.clone())));
        match (active, prepared) {
            (None, None) => steps.push(Step::Create(key_use, KeyState::Active)),
            (None, Some(prepared)) => steps.push(Step::Activate(prepared.key_id.clone())),
            (Some(active), None) if now >= succession_time(active) => {
                steps.push(Step::Create(key_use, KeyState::Prepared));
            }
            (Some(active), Some(prepared)) if now >= prepared.created + self.publication() => {
                steps.push(Step::Retire(active.key_id.clone()));
                steps.push(Step::Activate(prepared.key_id.clone()));
            }
            _ => {}
        }
    }

    /// Who is to sign now, if anybody can. One whose time has not begun signs only if
    /// there is no other: the clock is behind.
    fn signer<'a>(
        &self,
        keys: &'a [&'a StoredAuthority],
        now: SystemTime,
    ) -> Option<&'a StoredAuthority> {
        let active = || in_state(keys, KeyState::Active).filter(|key| signs(key, now));
        newest(active().filter(|key| has_begun(key, now))).or_else(|| newest(active()))
    }

    /// What is due when an issuer starts, before all else. What it does depends on its
    /// own settings and clock, so that issuers of one store whose settings or clocks
    /// differ could undo each other's steps for ever, were it done at any other time.
    ///
    /// Keys of a use that is switched off sign no more. And a clock that was far ahead for
    /// a while has retired keys before their time and made others that begin only then:
    /// now that it is right again, the retired ones sign again.
    pub fn at_start(&self, keys: &[StoredAuthority], now: SystemTime) -> Vec<Step> {
        let mut steps = Vec::new();
        for key_use in KeyUse::ALL {
            let keys: Vec<_> = keys.iter().filter(|key| key.key_use == key_use).collect();
            let active = in_state(&keys, KeyState::Active);
            if !self.uses().any(|it| it == key_use) {
                let prepared = in_state(&keys, KeyState::Prepared);
                steps.extend(active.map(|key| Step::Retire(key.key_id.clone())));
                steps.extend(prepared.map(|key| Step::Remove(key.key_id.clone())));
                continue;
            }
            let usable = |key: &&StoredAuthority| signs(key, now) && has_begun(key, now);
            let retired = newest(in_state(&keys, KeyState::Retired).filter(usable));
            let ahead: Vec<_> = active.filter(|key| signs(key, now)).collect();
            let all_ahead = !ahead.is_empty() && !ahead.iter().any(|key| has_begun(key, now));
            if let (Some(retired), true) = (retired, all_ahead) {
                steps.extend(ahead.iter().map(|key| Step::Retire(key.key_id.clone())));
                steps.push(Step::Activate(retired.key_id.clone()));
            }
        }
        steps
    }

    /// Whether no key of this use can sign any more: nothing of it that works is left.
    pub fn all_ended(&self, keys: &[StoredAuthority], key_use: KeyUse, now: SystemTime) -> bool {
        let mut keys = keys.iter().filter(|key| key.key_use == key_use);
        keys.all(|key| key.not_after <= now)
    }

    /// When something may be due next; a moment too early does no harm.
    pub fn next(&self, keys: &[StoredAuthority], now: SystemTime) -> Option<SystemTime> {
        let moments = keys.iter().filter_map(|key| match key.state {
            // Its successor is under way.
            KeyState::Active if now >= succession_time(key) => Some(key.not_after),
            _ => self.next_of(key),
        });
        moments.filter(|moment| *moment > now).min()
    }

    /// When the next step of a key is due: it begins to sign, has its successor prepared,
    /// or leaves.
    pub fn next_of(&self, key: &StoredAuthority) -> Option<SystemTime> {
        match key.state {
            KeyState::Prepared => Some(key.created + self.publication()),
            KeyState::Active => Some(succession_time(key)),
            KeyState::Retired if key.sealed_key.is_empty() => None,
            KeyState::Retired => Some(removal(key)),
        }
    }

    /// What an operator's order means: the next step of each of these uses, whether it is
    /// due or not. Without `at_once` a successor is only prepared, and published for as
    /// long as always.
    pub fn ordered(&self, keys: &[StoredAuthority], uses: &[KeyUse], at_once: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        for key_use in self.uses().filter(|key_use| uses.contains(key_use)) {
            let keys: Vec<_> = keys.iter().filter(|key| key.key_use == key_use).collect();
            let prepared = newest(in_state(&keys, KeyState::Prepared));
            if at_once {
                steps.extend(
                    in_state(&keys, KeyState::Active).map(|key| Step::Retire(key.key_id.clone())),
                );
            }
            match (prepared, at_once) {
                (Some(prepared), true) => steps.push(Step::Activate(prepared.key_id.clone())),
                (Some(_), false) => {}
                (None, true) => steps.push(Step::Create(key_use, KeyState::Active)),
                (None, false) => steps.push(Step::Create(key_use, KeyState::Prepared)),
            }
        }
        steps
    }
}

fn in_state<'a>(
    keys: &'a [&'a StoredAuthority],
    state: KeyState,
) -> impl Iterator<Item = &'a StoredAuthority> + use<'a> {
    keys.iter().copied().filter(move |key| key.state == state)
}

/// Whether it can sign.
fn signs(key: &StoredAuthority, now: SystemTime) -> bool {
    now < key.not_after && !key.sealed_key.is_empty()
}

/// Whether its time has begun.
fn has_begun(key: &StoredAuthority, now: SystemTime) -> bool {
    key.created <= now + CLOCK_STEP
}

fn newest<'a>(keys: impl Iterator<Item = &'a StoredAuthority>) -> Option<&'a StoredAuthority> {
    keys.max_by_key(|key| key.created)
}

/// Two thirds of its life.
fn succession_time(key: &StoredAuthority) -> SystemTime {
    let life = key.not_after.duration_since(key.created);
    key.created + life.unwrap_or_default() / 3 * 2
}

/// When nothing that a retired key signed is valid any more.
fn removal(key: &StoredAuthority) -> SystemTime {
    let longest = match key.key_use {
        KeyUse::X509 => X509_LONGEST,
        KeyUse::JwtEs256 | KeyUse::JwtRs256 | KeyUse::Wit => TOKEN_LONGEST,
        KeyUse::Audit => Duration::ZERO,
    };
    let retired = key.retired.unwrap_or(key.not_after);
    let life = key
        .not_after
        .duration_since(key.created)
        .unwrap_or_default();
    let over = (retired + longest + SLACK).min(key.not_after);
    over.max(retired + REGRET.min(life / 90))
}

#[cfg(test)]
mod tests;
