//! Who may have what: bots, their instances, roles, locks.
//!
//! A caller that is refused learns that it was refused; *why* is for the audit
//! log. In particular it cannot tell a resource that does not exist from one
//! that it may not have.

pub mod caller;
pub mod changes;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use crate::{
    audit::{Event, EventName},
    authority::AuthorityError,
    catalog::Catalog,
    resources::{ResourceName, Spec},
    store::{StoreError, Tx, audit, instances, instances::BotInstance},
};

pub use self::caller::{Caller, NotABot};

/// Why something was refused, spelled the same in audit, metrics and log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The join token is not known.
    UnknownToken,
    /// The join token was used before.
    UsedToken,
    /// The join token's life has ended.
    ExpiredToken,
    /// The bot does not exist (any more).
    UnknownBot,
    /// The bot has no such instance (any more).
    UnknownInstance,
    /// The certificate that the connection was made with has ended.
    ExpiredCertificate,
    /// The certificate is not a bot's.
    NotABot,
    /// Too many failed joins from one source.
    RateLimited,
    /// The user may not administrate.
    NotAdmitted,
    /// The instance is locked.
    Locked,
    /// An older generation was presented: the identity was copied.
    CopiedIdentity,
    /// The certificate's successor is in use already: the next renewal decides
    /// whether it is a copy.
    SupersededCertificate,
    /// A generation was presented that the store does not know of: it was
    /// restored from a backup.
    UnknownGeneration,
    /// There is no such workload identity.
    UnknownWorkloadIdentity,
    /// No role of the bot selects the workload identity.
    NoRole,
    /// The SPIFFE ID cannot be issued.
    InvalidId,
    /// The certificate request is not acceptable.
    InvalidCsr,
    /// The wanted life is not acceptable.
    InvalidTtl,
    /// The authority cannot sign (it has expired).
    Authority,
}

impl Denial {
    /// As recorded.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownToken => "unknown_token",
            Self::UsedToken => "used_token",
            Self::ExpiredToken => "expired_token",
            Self::UnknownBot => "unknown_bot",
            Self::UnknownInstance => "unknown_instance",
            Self::ExpiredCertificate => "expired_certificate",
            Self::NotABot => "not_a_bot",
            Self::RateLimited => "rate_limited",
            Self::NotAdmitted => "not_admitted",
            Self::Locked => "locked",
            Self::CopiedIdentity => "copied_identity",
            Self::SupersededCertificate => "superseded_certificate",
            Self::UnknownGeneration => "unknown_generation",
            Self::UnknownWorkloadIdentity => "unknown_workload_identity",
            Self::NoRole => "no_role",
            Self::InvalidId => "invalid_id",
            Self::InvalidCsr => "invalid_csr",
            Self::InvalidTtl => "invalid_ttl",
            Self::Authority => "authority",
        }
    }
}

/// Why a decision did not end in a grant.
#[derive(Debug)]
pub enum Refusal {
    /// It was refused; `detail` is for whoever may know (audit, log).
    Denied {
        /// Why.
        denial: Denial,
        /// With which values.
        detail: String,
    },
    /// It could not be decided.
    Store(StoreError),
}

impl Refusal {
    /// A refusal with its values.
    pub fn denied(denial: Denial, detail: impl Into<String>) -> Self {
        Self::Denied {
            denial,
            detail: detail.into(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<AuthorityError> for Refusal {
    fn from(error: AuthorityError) -> Self {
        Self::denied(Denial::Authority, error.to_string())
    }
}

/// How long after its successor was first seen a certificate may still open a
/// connection and get identities on it: an agent that renews has others under way.
pub const SUCCESSION_GRACE: Duration = Duration::from_secs(60);

/// Admits the caller: its bot and its instance exist, no lock is on it, and its
/// certificate is not one that only a copy would still present. To be asked inside
/// the transaction that grants, so that a lock that comes later comes after the
/// grant. Whoever records a refusal also calls [`lock_if_copied`].
pub async fn admit(tx: &mut Tx, caller: &Caller, now: SystemTime) -> Result<BotInstance, Refusal> {
    let catalog = tx.catalog().await?;
    let instance = catalog
        .instance(&caller.instance_id)
        .filter(|instance| instance.bot_name == caller.bot_name);
    let Some(instance) = instance else {
        let detail = format!("bot {} has no such instance", caller.bot_name);
        return Err(Refusal::denied(Denial::UnknownInstance, detail));
    };
    if let Some(reason) = &instance.locked_reason {
        return Err(Refusal::denied(Denial::Locked, reason.as_str()));
    }
    let (presented, newest) = (caller.generation, instance.generation);
    if presented.saturating_add(1) < newest {
        let told = told_generations(presented, newest);
        return Err(Refusal::denied(Denial::CopiedIdentity, told));
    }
    if presented == newest && instance.newest_seen.is_none() {
        instances::newest_seen(tx, &instance.instance_id, now).await?;
    }
    Ok(BotInstance::clone(&instance))
}

/// Refuses an issuance on a certificate that is the newest but one, if it opened
/// its connection after the newest has been in use for [`SUCCESSION_GRACE`]. That
/// may be a copy, or an agent that lost the newest with its disk: the latter still
/// has the key, repeats its renewal, and so proves it. Therefore nothing is locked
/// here; the renewal decides.
pub fn refuse_superseded(caller: &Caller, instance: &BotInstance) -> Result<(), Refusal> {
    let (presented, newest) = (caller.generation, instance.generation);
    let superseded = instance
        .newest_seen
        .is_some_and(|seen| caller.connected > seen + SUCCESSION_GRACE);
    if presented < newest && superseded {
        let told = told_generations(presented, newest);
        return Err(Refusal::denied(Denial::SupersededCertificate, told));
    }
    Ok(())
}

/// What is told of an old certificate.
pub fn told_generations(presented: u64, newest: u64) -> String {
    format!("generation {presented} was presented, the newest is {newest}")
}

/// Locks the instance of a caller that was refused as a copy, in the transaction
/// that records the refusal.
pub async fn lock_if_copied<T>(
    tx: &mut Tx,
    caller: &Caller,
    decision: &Result<T, Refusal>,
    now: SystemTime,
) -> Result<(), StoreError> {
    if let Err(Refusal::Denied {
        denial: Denial::CopiedIdentity,
        detail,
    }) = decision
    {
        let reason = format!("copied identity: {detail}");
        lock_instance(tx, &caller.bot_name, &caller.instance_id, &reason, now).await?;
    }
    Ok(())
}

/// The first role of the bot that selects `labels`.
pub fn role_that_allows(
    catalog: &Catalog,
    bot_name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<ResourceName, Refusal> {
    let bot = catalog.bot(bot_name)?;
    let Some(Spec::Bot(bot)) = bot.as_ref().map(|bot| &bot.spec) else {
        let detail = format!("there is no bot {bot_name}");
        return Err(Refusal::denied(Denial::UnknownBot, detail));
    };
    for name in &bot.roles {
        let role = catalog.role(name.as_str())?;
        if let Some(Spec::Role(role)) = role.as_ref().map(|role| &role.spec)
            && role.workload_identity_labels.matches(labels)
        {
            return Ok(name.clone());
        }
    }
    let roles: Vec<_> = bot.roles.iter().map(ResourceName::as_str).collect();
    let detail = format!("none of the bot's roles [{}] selects it", roles.join(", "));
    Err(Refusal::denied(Denial::NoRole, detail))
}

/// Locks an instance and records it. Its calls are refused from the commit on,
/// and its streams end.
pub async fn lock_instance(
    tx: &mut Tx,
    bot_name: &str,
    instance_id: &str,
    reason: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    instances::lock(tx, instance_id, reason, now).await?;
    let event = Event::success(EventName::LockCreate)
        .with("bot_name", bot_name)
        .with("bot_instance_id", instance_id)
        .with("lock_reason", reason);
    audit::append(tx, &event, now).await?;
    Ok(())
}

/// How many ended instances are forgotten at once: a join waits for it.
const FORGOTTEN_AT_ONCE: u32 = 64;

/// Forgets instances whose newest certificate ended before `before`, and records
/// each. Locked ones stay until their bot is deleted.
pub async fn forget_ended(
    tx: &mut Tx,
    before: SystemTime,
    now: SystemTime,
) -> Result<(), StoreError> {
    let ended = instances::ended(tx.connection().await?, before, FORGOTTEN_AT_ONCE).await?;
    for instance in ended {
        instances::remove(tx, &instance.instance_id).await?;
        let event = Event::success(EventName::BotInstanceDelete)
            .with("bot_name", instance.bot_name)
            .with("bot_instance_id", instance.instance_id)
            .with("generation", instance.generation)
            .with_time("not_after", instance.not_after)
            .with("user", "issuer");
        audit::append(tx, &event, now).await?;
    }
    Ok(())
}

/// Removes the lock of an instance and records it; whether there was one.
pub async fn unlock_instance(
    tx: &mut Tx,
    bot_name: &str,
    instance_id: &str,
    operator: &str,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let instance = instances::read(tx.connection().await?, bot_name, instance_id).await?;
    if instance.is_none() || !instances::unlock(tx, instance_id).await? {
        return Ok(false);
    }
    let event = Event::success(EventName::LockDelete)
        .with("bot_name", bot_name)
        .with("bot_instance_id", instance_id)
        .with("user", operator);
    audit::append(tx, &event, now).await?;
    Ok(true)
}

#[cfg(test)]
mod tests;
