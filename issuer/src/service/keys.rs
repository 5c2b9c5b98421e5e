//! The keys at work: read from the catalog, rotated when their time has come, and
//! followed when another issuer of the same store rotates them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use identity::TrustDomain;
use tokio::sync::watch;

use super::Issuer;
use crate::{
    authority::{
        KeyState, KeyUse, Keyring, KeyringError, Lifecycle, Rotation, RotationError,
        StoredAuthority, keyfile::SealingKey, lifecycle::Step,
    },
    catalog::Catalog,
    store::{Store, settings},
};

/// When to try again after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// How often a warning is repeated.
const HOUR: Duration = Duration::from_secs(3600);
/// Longest sleep: a clock that is set must not make it miss a step by much.
const NAP: Duration = Duration::from_secs(60);

/// What keys are read and made with, and the keyring that was read last.
pub(super) struct Keys {
    pub(super) trust_domain: TrustDomain,
    pub(super) sealing: Arc<SealingKey>,
    pub(super) lifecycle: Lifecycle,
}

impl Keys {
    /// The keyring that a catalog holds.
    pub(super) fn read(&self, catalog: &Catalog) -> Result<Held, KeyringError> {
        let stored: Vec<_> = catalog.authorities().cloned().collect();
        let sequence = catalog.number(settings::BUNDLE_SEQUENCE);
        let (name, lifecycle) = (&self.trust_domain, self.lifecycle);
        let keyring = Keyring::open(name, &stored, &self.sealing, lifecycle, sequence)?;
        Ok(Held {
            stored,
            sequence,
            keyring: Arc::new(keyring),
        })
    }

    /// What steps are carried out with.
    pub(super) fn rotation<'a>(&'a self, user: &'a str, now: SystemTime) -> Rotation<'a> {
        Rotation {
            trust_domain: &self.trust_domain,
            sealing: &self.sealing,
            lifecycle: self.lifecycle,
            user,
            now,
        }
    }
}

/// A keyring, and what it was read from.
pub(super) struct Held {
    stored: Vec<Arc<StoredAuthority>>,
    sequence: u64,
    pub(super) keyring: Arc<Keyring>,
}

impl Held {
    fn is_of(&self, catalog: &Catalog) -> bool {
        self.sequence == catalog.number(settings::BUNDLE_SEQUENCE)
            && self.stored.len() == catalog.authorities().count()
            && self
                .stored
                .iter()
                .zip(catalog.authorities())
                .all(|(held, now)| Arc::ptr_eq(held, now) || held == now)
    }
}

/// The keyring of now, for all who sign, and for all who follow it.
pub(super) struct Current {
    held: Mutex<Held>,
    keyring: watch::Sender<Arc<Keyring>>,
}

impl Current {
    pub(super) fn new(held: Held, store: &Store) -> Self {
        vouch(store, &held.keyring);
        Self {
            keyring: watch::Sender::new(held.keyring.clone()),
            held: Mutex::new(held),
        }
    }

    pub(super) fn keyring(&self) -> Arc<Keyring> {
        self.keyring.borrow().clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Keyring>> {
        self.keyring.subscribe()
    }
}

/// Has commits signed by the audit key.
fn vouch(store: &Store, keyring: &Keyring) {
    store.sign_heads(keyring.trust_domain().clone(), keyring.audit().clone());
}

impl Issuer {
    /// The keys as they are now. Who needs several answers that agree keeps this one.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.current.keyring()
    }

    /// Follows the keys: each change of the trust bundle or of who signs is a value.
    pub fn keyrings(&self) -> watch::Receiver<Arc<Keyring>> {
        self.current.subscribe()
    }

    /// How long keys live, and which there are.
    pub fn lifecycle(&self) -> Lifecycle {
        self.keys.lifecycle
    }

    /// Takes the keys over that the store holds now; whether they are others.
    fn refresh_keys(&self) -> Result<bool, KeyringError> {
        let mut held = self
            .current
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let catalog = self.store.catalog();
        if held.is_of(&catalog) {
            return Ok(false);
        }
        *held = self.keys.read(&catalog)?;
        vouch(&self.store, &held.keyring);
        self.current.keyring.send_replace(held.keyring.clone());
        measure(&held.keyring);
        Ok(true)
    }

    /// Keeps the keys alive until the issuer drains: follows what others do with them,
    /// and does what is due.
    pub async fn keep_keys(self: Arc<Self>, mut draining: watch::Receiver<bool>) {
        measure(&self.keyring());
        let mut changes = self.store.changes();
        let mut warned: Option<Instant> = None;
        loop {
            let now = SystemTime::now();
            let mut nap = match self.advance_keys(now).await {
                Ok(next) => next.duration_since(now).unwrap_or_default().min(NAP),
                Err(error) => {
                    tracing::error!(%error, "the issuer's keys could not be rotated");
                    RETRY
                }
            };
            nap = nap.max(Duration::from_millis(200));
            let near = self.keyring().end_is_near(now);
            if let Some(warning) = near.filter(|_| warned.is_none_or(|at| at.elapsed() >= HOUR)) {
                tracing::warn!("{warning}");
                warned = Some(Instant::now());
            }
            let wake = tokio::time::Instant::now() + nap;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(wake) => break,
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        match self.refresh_keys() {
                            Ok(false) => {}
                            // Other steps are due at other times.
                            Ok(true) => break,
                            Err(error) => tracing::error!(%error, "the keys in the store cannot be used"),
                        }
                    }
                    // An error means that the process is ending.
                    _ = draining.wait_for(|draining| *draining) => return,
                }
            }
        }
    }

    /// Does what is due; when something is due next.
    pub(super) async fn advance_keys(&self, now: SystemTime) -> Result<SystemTime, RotationError> {
        let stored = self.stored_keys();
        let due = self.keys.lifecycle.due(&stored, now);
        if !due.is_empty() {
            let spare = self.spare_keys(&due, now).await?;
            let keys = self.keys.clone();
            let done = self.store.write::<_, RotationError, _>(move |tx| {
                let (keys, mut spare) = (keys.clone(), spare.clone());
                Box::pin(async move { keys.rotation("issuer", now).advance(tx, &mut spare).await })
            });
            tell(&done.await?);
            self.refresh_keys()?;
        }
        let next = self.keys.lifecycle.next(&self.stored_keys(), now);
        Ok(next.unwrap_or(now + NAP))
    }

    /// Does what an operator orders; see [`Lifecycle::ordered`].
    pub async fn rotate_keys(
        &self,
        uses: Vec<KeyUse>,
        at_once: bool,
        user: String,
        now: SystemTime,
    ) -> Result<Vec<Step>, RotationError> {
        let ordered = self
            .keys
            .lifecycle
            .ordered(&self.stored_keys(), &uses, at_once);
        let spare = self.spare_keys(&ordered, now).await?;
        let keys = self.keys.clone();
        let write = self.store.write::<_, RotationError, _>(move |tx| {
            let (keys, uses, user) = (keys.clone(), uses.clone(), user.clone());
            let mut spare = spare.clone();
            Box::pin(async move {
                let rotation = keys.rotation(&user, now);
                rotation.order(tx, &uses, at_once, &mut spare).await
            })
        });
        let done = write.await?;
        tell(&done);
        self.refresh_keys()?;
        Ok(done)
    }

    /// Takes a key out of the trust bundle; see [`Rotation::withdraw`].
    pub async fn withdraw_key(
        &self,
        key_id: String,
        even_if_held: bool,
        user: String,
        now: SystemTime,
    ) -> Result<(), RotationError> {
        let keys = self.keys.clone();
        let withdrawn = key_id.clone();
        let write = self.store.write::<_, RotationError, _>(move |tx| {
            let (keys, key_id, user) = (keys.clone(), key_id.clone(), user.clone());
            Box::pin(async move {
                let rotation = keys.rotation(&user, now);
                rotation.withdraw(tx, &key_id, even_if_held).await
            })
        });
        write.await?;
        tracing::warn!(key_id = withdrawn, "a key was withdrawn");
        self.refresh_keys()?;
        Ok(())
    }

    /// Makes the keys that these steps need, outside of any transaction: to find an
    /// RSA key takes a while.
    async fn spare_keys(
        &self,
        steps: &[Step],
        now: SystemTime,
    ) -> Result<Vec<StoredAuthority>, RotationError> {
        let wanted: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Create(key_use, state) => Some((*key_use, *state)),
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys.clone();
        let made = tokio::task::spawn_blocking(move || {
            let rotation = keys.rotation("issuer", now);
            let make = |(key_use, state)| rotation.make(key_use, state);
            wanted.into_iter().map(make).collect()
        });
        // It fails only with the process; then the transaction makes them.
        made.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    fn stored_keys(&self) -> Vec<StoredAuthority> {
        let catalog = self.store.catalog();
        catalog
            .authorities()
            .map(|key| key.as_ref().clone())
            .collect()
    }
}

fn tell(steps: &[Step]) {
    for step in steps {
        match step {
            Step::Create(key_use, state) => tracing::info!(%key_use, %state, "a key was made"),
            Step::Activate(key_id) => tracing::info!(key_id, "a key begins to sign"),
            Step::Retire(key_id) => tracing::info!(key_id, "a key signs no more"),
            Step::Remove(key_id) => tracing::info!(key_id, "a key has left the trust bundle"),
            Step::Wipe(key_id) => tracing::info!(key_id, "a private key was wiped"),
        }
    }
}

fn measure(keyring: &Keyring) {
    for key_use in KeyUse::ALL {
        let of_use = keyring.keys().iter().filter(|key| key.key_use == key_use);
        for state in [KeyState::Prepared, KeyState::Active, KeyState::Retired] {
            let count = of_use.clone().filter(|key| key.state == state).count();
            metrics::gauge!("issuer_keys", "use" => key_use.as_str(), "state" => state.as_str())
                .set(count as f64);
        }
        let signer = of_use.clone().rfind(|key| key.state == KeyState::Active);
        if let Some(signer) = signer {
            let end = signer
                .not_after
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            metrics::gauge!("issuer_key_expiry_timestamp_seconds", "use" => key_use.as_str())
                .set(end.as_secs_f64());
        }
    }
}
