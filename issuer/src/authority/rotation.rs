//! Carries out the steps of [`super::lifecycle`]: keys are made, begin and cease to sign,
//! and leave, each step recorded in the transaction that does it.
//!
//! Several issuers may share the store. Each looks at what is due within the
//! transaction that does it, so one of them does it and the others find nothing to do.

use std::time::SystemTime;

use identity::TrustDomain;

use super::{
    Authority, AuthorityError, KeyState, KeyUse, KeyringError, Lifecycle, StoredAuthority,
    TokenKey,
    keyfile::{KeyFileError, SealingKey},
    lifecycle::Step,
    whole_seconds,
};
use crate::{
    audit::{Event, EventName},
    store::{Failure, StoreError, Tx, audit, authorities, instances::BotInstance, settings},
};

/// More passes than any state of the store needs.
const PASSES: usize = 8;

/// What steps are carried out with.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Whose keys they are.
    pub trust_domain: &'a TrustDomain,
    /// What private keys are sealed with.
    pub sealing: &'a SealingKey,
    /// What the operator decided.
    pub lifecycle: Lifecycle,
    /// Who is recorded as the one who did it: `issuer`, or an operator.
    pub user: &'a str,
    /// Now.
    pub now: SystemTime,
}

impl Rotation<'_> {
    /// Does what is due; says what was done. `spare` keys are taken where one is to be
    /// made, so that the transaction does not wait for an RSA key.
    pub async fn advance(
        &self,
        tx: &mut Tx,
        spare: &mut Vec<StoredAuthority>,
    ) -> Result<Vec<Step>, RotationError> {
        let mut done = Vec::new();
        for _ in 0..PASSES {
            let keys = authorities::list(tx.connection().await?).await?;
            let steps = self.lifecycle.due(&keys, self.now);
            if steps.is_empty() {
                break;
            }
            self.carry_out(tx, &keys, &steps, spare).await?;
            done.extend(steps);
        }
        Ok(done)
    }

    /// Does what is due when an issuer starts, and then what else is due; says what was
    /// done.
    pub async fn start(&self, tx: &mut Tx) -> Result<Vec<Step>, RotationError> {
        let keys = authorities::list(tx.connection().await?).await?;
        let mut done = self.lifecycle.at_start(&keys, self.now);
        let mut spare = Vec::new();
        self.carry_out(tx, &keys, &done, &mut spare).await?;
        done.extend(self.advance(tx, &mut spare).await?);
        Ok(done)
    }

    /// Does what an operator ordered; see [`Lifecycle::ordered`].
    pub async fn order(
        &self,
        tx: &mut Tx,
        uses: &[KeyUse],
        at_once: bool,
        spare: &mut Vec<StoredAuthority>,
    ) -> Result<Vec<Step>, RotationError> {
        let keys = authorities::list(tx.connection().await?).await?;
        let steps = self.lifecycle.ordered(&keys, uses, at_once);
        self.carry_out(tx, &keys, &steps, spare).await?;
        Ok(steps)
    }

    /// Does what an operator ordered: a key that does not sign leaves the trust bundle, and
    /// the store, before its time. What it signed is trusted no more, so while bot
    /// instances hold a certificate of it this is refused unless `even_if_held`.
    pub async fn withdraw(
        &self,
        tx: &mut Tx,
        key_id: &str,
        even_if_held: bool,
    ) -> Result<(), RotationError> {
        let keys = authorities::list(tx.connection().await?).await?;
        let key = keys.iter().find(|key| key.key_id == key_id);
        let key = key.ok_or_else(|| NotWithdrawn::Unknown(key_id.to_owned()))?;
        match (key.state, key.key_use) {
            (KeyState::Active, key_use) => {
                return Err(NotWithdrawn::Signs(key_id.to_owned(), key_use).into());
            }
            (_, KeyUse::Audit) => return Err(NotWithdrawn::Audit(key_id.to_owned()).into()),
            (KeyState::Prepared | KeyState::Retired, _) => {}
        }
        if let (KeyUse::X509, Some(retired), false) = (key.key_use, key.retired, even_if_held) {
            let catalog = tx.catalog().await?;
            let holds = |instance: &BotInstance| {
                instance.renewed <= retired && self.now < instance.not_after
            };
            let mut holders = catalog.instances().filter(|instance| holds(instance));
            if let Some(one) = holders.next() {
                return Err(NotWithdrawn::Held {
                    count: holders.count() + 1,
                    bot_name: one.bot_name.clone(),
                    instance_id: one.instance_id.clone(),
                }
                .into());
            }
        }
        let step = Step::Remove(key_id.to_owned());
        self.carry_out(tx, &keys, &[step], &mut Vec::new()).await
    }

    /// Makes a key of this use, not stored yet.
    pub fn make(&self, key_use: KeyUse, state: KeyState) -> Result<StoredAuthority, RotationError> {
        let (key_id, certificate, not_after, pkcs8) = if key_use == KeyUse::X509 {
            let life = self.lifecycle.life;
            let (authority, pkcs8) = Authority::create(self.trust_domain, self.now, life)?;
            let certificate = authority.certificate().to_vec();
            (
                authority.key_id(),
                certificate,
                authority.not_after(),
                pkcs8,
            )
        } else {
            let not_after = whole_seconds(self.now + self.lifecycle.life);
            let (key, pkcs8) = TokenKey::generate(key_use, not_after)?;
            let jwk = serde_json::to_vec(key.public().members()).unwrap_or_default();
            (key.key_id().to_owned(), jwk, not_after, pkcs8)
        };
        let sealed_key = self.sealing.seal(self.trust_domain, &key_id, &pkcs8)?;
        Ok(StoredAuthority {
            key_id,
            key_use,
            state,
            certificate,
            sealed_key,
            created: self.now,
            activated: (state == KeyState::Active).then_some(self.now),
            retired: None,
            not_after,
        })
    }

    async fn carry_out(
        &self,
        tx: &mut Tx,
        keys: &[StoredAuthority],
        steps: &[Step],
        spare: &mut Vec<StoredAuthority>,
    ) -> Result<(), RotationError> {
        let mut bundle_changes = false;
        for step in steps {
            let found = |key_id: &str| {
                let key = keys.iter().find(|key| key.key_id == key_id);
                key.cloned()
                    .ok_or_else(|| StoreError::Damaged(format!("it has lost the key {key_id}")))
            };
            let (name, key) = match step {
                Step::Create(key_use, state) => {
                    let at = spare.iter().position(|key| key.key_use == *key_use);
                    let mut key = match at {
                        Some(at) => spare.swap_remove(at),
                        None => self.make(*key_use, *state)?,
                    };
                    key.state = *state;
                    key.activated = (*state == KeyState::Active).then_some(self.now);
                    authorities::add(tx, &key).await?;
                    (EventName::AuthorityCreate, key)
                }
                Step::Activate(key_id) => {
                    let mut key = found(key_id)?;
                    key.state = KeyState::Active;
                    key.activated = Some(self.now);
                    key.retired = None;
                    authorities::update(tx, &key).await?;
                    (EventName::AuthorityActivate, key)
                }
                Step::Retire(key_id) => {
                    let mut key = found(key_id)?;
                    key.state = KeyState::Retired;
                    key.retired = Some(self.now);
                    authorities::update(tx, &key).await?;
                    (EventName::AuthorityRetire, key)
                }
                Step::Wipe(key_id) => {
                    let mut key = found(key_id)?;
                    key.sealed_key.clear();
                    authorities::update(tx, &key).await?;
                    (EventName::AuthorityRemove, key)
                }
                Step::Remove(key_id) => {
                    authorities::remove(tx, key_id).await?;
                    (EventName::AuthorityRemove, found(key_id)?)
                }
            };
            let changes = matches!(step, Step::Create(..) | Step::Remove(_));
            bundle_changes |= changes && key.key_use != KeyUse::Audit;
            audit::append(tx, &self.event(name, &key), self.now).await?;
        }
        if bundle_changes {
            settings::raise_bundle_sequence(tx).await?;
        }
        Ok(())
    }

    fn event(&self, name: EventName, key: &StoredAuthority) -> Event {
        let event = Event::success(name)
            .with("trust_domain", self.trust_domain.as_str())
            .with("key_id", key.key_id.as_str())
            .with("key_use", key.key_use.as_str())
            .with("state", key.state.as_str())
            .with_time("not_after", key.not_after)
            .with("user", self.user);
        match ca_pin(key) {
            Some(pin) => event.with("ca_pin", pin),
            None => event,
        }
    }
}

/// The pin of a CA.
fn ca_pin(key: &StoredAuthority) -> Option<String> {
    let certificate = key.certificate.as_slice().into();
    (key.key_use == KeyUse::X509)
        .then(|| identity::CaPin::of_certificate(&certificate).ok())
        .flatten()
        .map(|pin| pin.to_string())
}

/// Why a key is not withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotWithdrawn {
    /// There is none of this id.
    #[error("there is no key {0:?}: `issuer authority list` names them")]
    Unknown(String),
    /// It signs.
    #[error(
        "the {1} key {0} signs: have it succeeded first, with `issuer authority rotate --use {1} --now`"
    )]
    Signs(String, KeyUse),
    /// It is in no trust bundle.
    #[error(
        "{0} is an audit key: it is in no trust bundle, and what it signed is verified with it"
    )]
    Audit(String),
    /// Bot instances would be shut out.
    #[error(
        "{count} bot instances have not renewed since that CA was retired (one of {bot_name}: {instance_id}): order `issuer renew-now` and wait, or add --force: they then have to join anew"
    )]
    Held {
        /// How many.
        count: usize,
        /// Bot of one of them.
        bot_name: String,
        /// One of them.
        instance_id: String,
    },
}

/// Why a step could not be done. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The keys that came out cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A key cannot be sealed.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// An order to withdraw a key is refused.
    #[error(transparent)]
    NotWithdrawn(#[from] NotWithdrawn),
}

impl Failure for RotationError {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}
