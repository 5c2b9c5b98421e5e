//! How many JWT-SVIDs the workloads of one user may have the issuer asked for.
//!
//! A token for an audience that is not in the cache is one issuance and one line of the
//! audit trail, and the issuer counts it against the agent: without a bound one workload
//! with ever other audiences would use up what all others need, and what the agent needs
//! for itself. Each user has a bucket that refills at a constant rate (GCRA: one instant a
//! user, "when it is full again").

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::room::User;

/// Tokens that may be asked for at one moment, of one user.
const BURST: u32 = 1_000;
/// Time in which one more may be: 50 a second.
const REFILL: Duration = Duration::from_millis(20);
/// Users that are known before those whose buckets are full are forgotten.
const USERS: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rate {
    full_again: Mutex<HashMap<User, Instant>>,
}

impl Rate {
    /// Takes one; `Err`: for how long there is none.
    pub(super) fn take(&self, user: User) -> Result<(), Duration> {
        let now = Instant::now();
        let mut users = self
            .full_again
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS && !users.contains_key(&user) {
            users.retain(|_, full_again| *full_again > now);
        }
        let full_again = users.entry(user).or_insert(now);
        let after = (*full_again).max(now) + REFILL;
        let debt = after.duration_since(now);
        match debt.checked_sub(REFILL * BURST) {
            Some(over) if !over.is_zero() => Err(over),
            _ => {
                *full_again = after;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
