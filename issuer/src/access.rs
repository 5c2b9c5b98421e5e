//! Who may have what: bots, their instances, roles, locks.
//!
//! A caller that is refused learns that it was refused; *why* is for the audit
//! log. In particular it cannot tell a resource that does not exist from one
//! that it may not have.

pub mod caller;
pub mod changes;

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    audit::{Event, EventName},
    authority::AuthorityError,
    resources::{Kind, ResourceName, Spec},
    store::{StoreError, Tx, audit, instances, instances::BotInstance, resources},
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
    /// The instance is locked.
    Locked,
    /// An older generation was presented: the identity was copied.
    CopiedIdentity,
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
            Self::Locked => "locked",
            Self::CopiedIdentity => "copied_identity",
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

/// Admits the caller: its bot and its instance exist, and no lock is on it. To
/// be asked inside the transaction that grants, so that a lock that comes later
/// comes after the grant.
pub async fn admit(tx: &mut Tx, caller: &Caller) -> Result<BotInstance, Refusal> {
    let instance = instances::read(tx.connection(), &caller.bot_name, &caller.instance_id).await?;
    let Some(instance) = instance else {
        let detail = format!("bot {} has no such instance", caller.bot_name);
        return Err(Refusal::denied(Denial::UnknownInstance, detail));
    };
    match &instance.locked_reason {
        Some(reason) => Err(Refusal::denied(Denial::Locked, reason.as_str())),
        None => Ok(instance),
    }
}

/// The first role of the bot that selects `labels`.
pub async fn role_that_allows(
    tx: &mut Tx,
    bot_name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<ResourceName, Refusal> {
    let bot = resources::read(tx.connection(), Kind::Bot, bot_name).await?;
    let Some(Spec::Bot(bot)) = bot.map(|bot| bot.spec) else {
        let detail = format!("there is no bot {bot_name}");
        return Err(Refusal::denied(Denial::UnknownBot, detail));
    };
    for name in &bot.roles {
        let role = resources::read(tx.connection(), Kind::Role, name.as_str()).await?;
        if let Some(Spec::Role(role)) = role.map(|role| role.spec)
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
    instances::lock(tx.connection(), instance_id, reason, now).await?;
    let event = Event::success(EventName::LockCreate)
        .with("bot_name", bot_name)
        .with("bot_instance_id", instance_id)
        .with("lock_reason", reason);
    audit::append(tx, &event, now).await?;
    tx.changes().access += 1;
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
    let instance = instances::read(tx.connection(), bot_name, instance_id).await?;
    if instance.is_none() || !instances::unlock(tx.connection(), instance_id).await? {
        return Ok(false);
    }
    let event = Event::success(EventName::LockDelete)
        .with("bot_name", bot_name)
        .with("bot_instance_id", instance_id)
        .with("user", operator);
    audit::append(tx, &event, now).await?;
    tx.changes().access += 1;
    Ok(true)
}
