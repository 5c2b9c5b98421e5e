//! Whether a bot instance may ask for anything at all: its instance is known, nothing
//! is locked, and its certificate is not one that only a copy would still present.
//!
//! Pure: it reads a catalog. Whoever records the refusal of a copy also locks the
//! instance ([`lock_copied`]), in the same transaction.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Caller, Denial, Refused, lock_instance};
use crate::{
    catalog::Catalog,
    resources::{LockTarget, ResourceName, Spec},
    store::{StoreError, Tx, instances::BotInstance},
};

/// How long after its successor was first seen a certificate may still open a
/// connection and get identities on it: an agent that renews has others under way.
pub const SUCCESSION_GRACE: Duration = Duration::from_secs(60);

/// The instance of a caller, if it is known and nothing is locked that it needs.
pub fn known(
    catalog: &Catalog,
    caller: &Caller,
    now: SystemTime,
) -> Result<Arc<BotInstance>, Refused> {
    let instance = catalog
        .instance(&caller.instance_id)
        .filter(|instance| instance.bot_name == caller.bot_name)
        .ok_or_else(|| {
            let detail = format!("bot {} has no such instance", caller.bot_name);
            Refused::new(Denial::UnknownInstance, detail)
        })?;
    let targets = lock_targets(
        &instance.bot_name,
        Some(&instance.instance_id),
        &instance.join_token_name,
    );
    refuse_locked(catalog, &targets, now, Denial::Locked)?;
    Ok(instance)
}

/// Admits a caller to have something granted; its instance. Issuance asks
/// [`refuse_superseded`] too.
pub fn admit(
    catalog: &Catalog,
    caller: &Caller,
    now: SystemTime,
) -> Result<Arc<BotInstance>, Refused> {
    let instance = known(catalog, caller, now)?;
    let (presented, newest) = (caller.generation, instance.generation);
    if presented.saturating_add(1) < newest {
        let told = told_generations(presented, newest);
        return Err(Refused::new(Denial::CopiedIdentity, told));
    }
    Ok(instance)
}

/// What a lock on a bot, one of its instances or a join token names.
pub fn lock_targets(bot: &str, instance: Option<&str>, token: &str) -> Vec<LockTarget> {
    let name = |text: &str| ResourceName::parse(text).ok();
    let bot = name(bot).map(LockTarget::Bot);
    let instance = instance.map(|id| LockTarget::BotInstance(id.to_owned()));
    let token = name(token).map(LockTarget::JoinToken);
    bot.into_iter().chain(instance).chain(token).collect()
}

/// Refuses if one of these is locked.
pub fn refuse_locked(
    catalog: &Catalog,
    targets: &[LockTarget],
    now: SystemTime,
    denial: Denial,
) -> Result<(), Refused> {
    let lock = catalog
        .lock_on(targets, now)
        .map_err(|error| Refused::new(Denial::Damaged, error.to_string()))?;
    let Some(lock) = lock else {
        return Ok(());
    };
    let name = &lock.metadata.name;
    let detail = match &lock.spec {
        Spec::Lock(spec) => format!("lock {name} on {}: {}", spec.target, spec.message),
        _ => format!("lock {name}"),
    };
    Err(Refused::new(denial, detail))
}

/// Refuses an issuance on a certificate that is the newest but one, if it opened
/// its connection after the newest has been in use for [`SUCCESSION_GRACE`]. That
/// may be a copy, or an agent that lost the newest with its disk: the latter still
/// has the key, repeats its renewal, and so proves it. Therefore nothing is locked
/// here; the renewal decides.
pub fn refuse_superseded(caller: &Caller, instance: &BotInstance) -> Result<(), Refused> {
    let (presented, newest) = (caller.generation, instance.generation);
    let superseded = instance
        .newest_seen
        .is_some_and(|seen| caller.connected > seen + SUCCESSION_GRACE);
    if presented < newest && superseded {
        let told = told_generations(presented, newest);
        return Err(Refused::new(Denial::SupersededCertificate, told));
    }
    Ok(())
}

/// Whether the newest certificate of an instance is presented for the first time.
pub fn is_first_seen(caller: &Caller, instance: &BotInstance) -> bool {
    caller.generation == instance.generation && instance.newest_seen.is_none()
}

/// What is told of an old certificate.
pub fn told_generations(presented: u64, newest: u64) -> String {
    format!("generation {presented} was presented, the newest is {newest}")
}

/// Locks the instance of a caller that was refused as a copy, in the transaction
/// that records the refusal.
pub async fn lock_copied(
    tx: &mut Tx,
    caller: &Caller,
    detail: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    let reason = format!("copied identity: {detail}");
    lock_instance(tx, &caller.bot_name, &caller.instance_id, &reason, now).await
}
