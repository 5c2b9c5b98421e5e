//! Who may have what: bots, their instances, roles, locks.
//!
//! A caller that is refused learns that it was refused; *why* is for the audit
//! log. In particular it cannot tell a resource that does not exist from one
//! that it may not have.

mod admission;
pub mod caller;
pub mod changes;

use std::time::SystemTime;

use crate::{
    audit::{Event, EventName},
    authority::AuthorityError,
    resources::{Kind, LockSpec, LockTarget, NameError},
    store::{StoreError, Tx, audit, instances, resources},
};

pub use self::{
    admission::{
        SUCCESSION_GRACE, admit, is_first_seen, known, lock_copied, lock_targets, refuse_locked,
        refuse_superseded, told_generations,
    },
    caller::{Caller, NotABot},
};

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
    /// What was asked is no request, or too much of one.
    InvalidRequest,
    /// There is no such workload identity.
    UnknownWorkloadIdentity,
    /// There is a lock on the workload identity, on the role that would allow it, or on
    /// the SPIFFE ID.
    LockedIdentity,
    /// No role of the bot selects the workload identity.
    NoRole,
    /// A role of the bot denies the workload identity.
    RoleDenies,
    /// A rule of the workload identity denies the caller.
    RuleDenies,
    /// No rule of the workload identity allows the caller.
    NoRule,
    /// A template of the workload identity comes to nothing valid.
    Template,
    /// The SPIFFE ID cannot be issued.
    InvalidId,
    /// It federates with a trust domain that is not known.
    UnknownFederation,
    /// The audience of a JWT-SVID is missing or not acceptable.
    InvalidAudience,
    /// WIT-SVIDs are switched off.
    WitOff,
    /// The certificate request is not acceptable.
    InvalidCsr,
    /// The wanted life is not acceptable.
    InvalidTtl,
    /// The answer would be too long.
    TooMuch,
    /// A stored resource that was needed cannot be understood.
    Damaged,
    /// The authority cannot sign (it has expired).
    Authority,
}

impl Denial {
    /// Every reason.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 30] = [
        Self::UnknownToken,
        Self::UsedToken,
        Self::ExpiredToken,
        Self::UnknownBot,
        Self::UnknownInstance,
        Self::ExpiredCertificate,
        Self::NotABot,
        Self::RateLimited,
        Self::NotAdmitted,
        Self::Locked,
        Self::CopiedIdentity,
        Self::SupersededCertificate,
        Self::UnknownGeneration,
        Self::InvalidRequest,
        Self::UnknownWorkloadIdentity,
        Self::LockedIdentity,
        Self::NoRole,
        Self::RoleDenies,
        Self::RuleDenies,
        Self::NoRule,
        Self::Template,
        Self::InvalidId,
        Self::UnknownFederation,
        Self::InvalidAudience,
        Self::WitOff,
        Self::InvalidCsr,
        Self::InvalidTtl,
        Self::TooMuch,
        Self::Damaged,
        Self::Authority,
    ];

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
            Self::InvalidRequest => "invalid_request",
            Self::UnknownWorkloadIdentity => "unknown_workload_identity",
            Self::LockedIdentity => "locked_identity",
            Self::NoRole => "no_role",
            Self::RoleDenies => "role_denies",
            Self::RuleDenies => "rule_denies",
            Self::NoRule => "no_rule",
            Self::Template => "template",
            Self::InvalidId => "invalid_id",
            Self::UnknownFederation => "unknown_federation",
            Self::InvalidAudience => "invalid_audience",
            Self::WitOff => "wit_off",
            Self::InvalidCsr => "invalid_csr",
            Self::InvalidTtl => "invalid_ttl",
            Self::TooMuch => "too_much",
            Self::Damaged => "damaged_record",
            Self::Authority => "authority",
        }
    }
}

/// Why something is refused, and with which values (for whoever may know: audit, log).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub denial: Denial,
    /// With which values.
    pub detail: String,
}

impl Refused {
    /// A refusal with its values.
    pub fn new(denial: Denial, detail: impl Into<String>) -> Self {
        Self {
            denial,
            detail: detail.into(),
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

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::denied(refused.denial, refused.detail)
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

/// Locks an instance and records it. Its calls are refused from the commit on,
/// and its streams end.
pub async fn lock_instance(
    tx: &mut Tx,
    bot_name: &str,
    instance_id: &str,
    reason: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    let damaged = |error: NameError| StoreError::Damaged(error.to_string());
    let mut lock = LockSpec::automatic(instance_id, reason).map_err(damaged)?;
    let target = LockTarget::BotInstance(instance_id.to_owned());
    let name = lock.metadata.name.clone();
    if tx.catalog().await?.lock_on(&[target], now)?.is_none() {
        // One that expired, or that somebody made into another, gives way.
        let old = resources::read(tx.connection().await?, Kind::Lock, name.as_str()).await?;
        lock.metadata.revision += old.map_or(0, |old| old.metadata.revision);
        resources::put(tx, &lock).await?;
    }
    let event = Event::success(EventName::LockCreate)
        .with("name", name.as_str())
        .with("bot_name", bot_name)
        .with("bot_instance_id", instance_id)
        .with("lock_reason", reason);
    audit::append(tx, &event, now).await?;
    Ok(())
}

/// How many ended instances are forgotten at once: a join waits for it.
const FORGOTTEN_AT_ONCE: i64 = 64;

/// Forgets instances whose newest certificate ended before `before`, and records
/// each. Locked ones stay until their bot is deleted.
pub async fn forget_ended(
    tx: &mut Tx,
    before: SystemTime,
    now: SystemTime,
) -> Result<(), StoreError> {
    let catalog = tx.catalog().await?;
    // Locked ones may come first, and must not hide the others.
    let locks = i64::try_from(catalog.count(Kind::Lock)).unwrap_or(0);
    let most = FORGOTTEN_AT_ONCE + locks;
    let ended = instances::ended(tx.connection().await?, before, most).await?;
    for instance in ended {
        let target = LockTarget::BotInstance(instance.instance_id.clone());
        if !catalog.locks_of(&target).is_empty() {
            continue;
        }
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

/// Removes the locks of an instance and records each; whether there was one.
pub async fn unlock_instance(
    tx: &mut Tx,
    bot_name: &str,
    instance_id: &str,
    operator: &str,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let instance = instances::read(tx.connection().await?, bot_name, instance_id).await?;
    match instance {
        Some(_) => remove_locks(tx, bot_name, instance_id, operator, now).await,
        None => Ok(false),
    }
}

/// Removes what locks this very instance; whether there was anything.
pub(crate) async fn remove_locks(
    tx: &mut Tx,
    bot_name: &str,
    instance_id: &str,
    operator: &str,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let target = LockTarget::BotInstance(instance_id.to_owned());
    let locks = tx.catalog().await?.locks_of(&target);
    for name in &locks {
        resources::remove(tx, Kind::Lock, name).await?;
        let event = Event::success(EventName::LockDelete)
            .with("name", &**name)
            .with("bot_name", bot_name)
            .with("bot_instance_id", instance_id)
            .with("user", operator);
        audit::append(tx, &event, now).await?;
    }
    Ok(!locks.is_empty())
}

#[cfg(test)]
mod tests;
