//! The issuer at work: its store and its authority, opened together.
//!
//! First start is one transaction: trust domain, keys and their audit events are
//! all there, or nothing is and the next start is the first again. Keys are rotated
//! long before their end ([`crate::authority::lifecycle`]); only an issuer that was
//! stopped for weeks finds that all have ended, and makes new ones for the same trust
//! domain.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::TrustDomain;

mod keys;

use self::keys::{Current, Keys};
use crate::{
    audit::{Event, EventName, best_effort::BestEffort, windows::Windows},
    authority::{
        KeyUse, KeyringError, Lifecycle, RotationError, keyfile::KeyFileError, keyfile::SealingKey,
        rfc3339,
    },
    store::{DataDirectory, Database, FILE, Store, StoreError, audit, authorities, settings},
};

/// Name of the key file in the data directory, unless another is named.
pub const KEY_FILE: &str = "ca.kek";

/// What the operator decided about a new or an old store.
#[derive(Debug, Clone)]
pub struct Foundation {
    /// The trust domain, if one was named.
    pub trust_domain: Option<TrustDomain>,
    /// What it is if none was named and the store is new.
    pub default_trust_domain: TrustDomain,
    /// The key file, if one was named.
    pub key_file: Option<PathBuf>,
    /// How long keys live, and which there are.
    pub lifecycle: Lifecycle,
}

/// Store and authority of a trust domain.
#[derive(Clone)]
pub struct Issuer {
    /// The system of record.
    pub store: Store,
    current: Arc<Current>,
    keys: Arc<Keys>,
    /// `iss` of JWT-SVIDs, if they are to have one.
    pub jwt_issuer: Option<String>,
    /// The newest renewal epoch when the issuer started.
    pub renew_epoch: u64,
    /// Who was refused lately for what costs nothing to repeat.
    pub refused: Arc<Windows>,
    /// The window of that epoch's order.
    pub renew_within: Duration,
    /// Takes what could not be recorded; none: nothing is given that is not recorded.
    pub best_effort: Option<Arc<BestEffort>>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("trust_domain", &self.keys.trust_domain)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Opens the store in `directory`, making the CA if it is new.
    pub async fn open(
        directory: &DataDirectory,
        foundation: &Foundation,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        let database = Database::sqlite(directory.file(FILE));
        Self::open_on(&database, directory, foundation, now).await
    }

    /// The same with the store in `database`, which issuers with the same key file may
    /// share; `directory` is this one's own.
    pub async fn open_on(
        database: &Database,
        directory: &DataDirectory,
        foundation: &Foundation,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        let is_new = matches!(database, Database::Sqlite { path } if !path.exists());
        let key_file = foundation
            .key_file
            .clone()
            .unwrap_or_else(|| directory.file(KEY_FILE));
        // Before the database is made: an unusable key file leaves no trace.
        let mut key = None;
        if is_new {
            key = Some(SealingKey::open(&key_file, true)?);
        }
        let store = Store::open(database).await?;
        let (founded, stored, events) = {
            let mut connection = store.read().await?;
            (
                settings::read(&mut connection, settings::TRUST_DOMAIN).await?,
                authorities::list(&mut connection).await?,
                audit::last_sequence(&mut connection).await?,
            )
        };
        refuse_remains(database, founded.is_some(), !stored.is_empty(), events)?;
        let sealing = match key {
            Some(key) => key,
            None => SealingKey::open(&key_file, stored.is_empty())?,
        };
        let trust_domain = match &founded {
            Some(name) => stored_trust_domain(name, foundation)?,
            None => new_trust_domain(foundation),
        };
        let sealing = Arc::new(sealing);
        let keys = |trust_domain| {
            Arc::new(Keys {
                trust_domain,
                sealing: sealing.clone(),
                lifecycle: foundation.lifecycle,
            })
        };
        let mut keys_now = keys(trust_domain);
        if founded.is_none() {
            // Another issuer on the same database may be the first after all.
            let name = found(&store, &keys_now, now).await?;
            keys_now = keys(stored_trust_domain(&name, foundation)?);
        }
        let keys = keys_now;
        let ended = !stored.is_empty() && keys.lifecycle.all_ended(&stored, KeyUse::X509, now);
        start_keys(&store, &keys, now).await?;
        let held = keys.read(&store.catalog())?;
        let keyring = held.keyring.clone();
        if ended {
            tracing::error!(
                ca_pin = keyring.pin(),
                ca_not_after = rfc3339(keyring.x509().not_after()),
                "every CA certificate had ended while the issuer was stopped: a NEW CA was made; \
                 give its pin (`ca_pins`) and a new token (`issuer bot add`) to every agent, none \
                 can connect until then"
            );
        }
        let (renew_epoch, renew_within) = {
            let mut connection = store.read().await?;
            (
                settings::read_number(&mut connection, settings::RENEW_EPOCH).await?,
                settings::read_number(&mut connection, settings::RENEW_WITHIN).await?,
            )
        };
        // From here on commits are signed, so what was there before is, too.
        let current = Arc::new(Current::new(held, &store));
        let started = Event::success(EventName::IssuerStart)
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("user", "issuer");
        if let Err(error) = record(&store, started, now).await {
            // It serves all the same: what needs no record, and the rest when it can.
            tracing::error!(%error, "the start was not recorded");
        }
        Ok(Self {
            current,
            store,
            jwt_issuer: None,
            keys,
            renew_epoch,
            refused: Arc::default(),
            renew_within: Duration::from_millis(renew_within),
            best_effort: None,
        })
    }

    /// Records a refusal that costs `source` nothing to repeat: once a window, with
    /// the number of refusals that the record stands for.
    pub async fn record_refusal(&self, source: &str, event: Event) -> Result<(), StoreError> {
        let Some(attempts) = self.refused.count(source, Instant::now()) else {
            return Ok(());
        };
        let event = event.with("attempts", attempts);
        record(&self.store, event, SystemTime::now()).await
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.keys.trust_domain
    }
}

async fn record(store: &Store, event: Event, now: SystemTime) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            let event = event.clone();
            Box::pin(async move { audit::append(tx, &event, now).await.map(|_| ()) })
        })
        .await
}

/// First start is one transaction, so a store holds trust domain, CA and audit
/// events together or none of them. What lacks some of them was damaged: to found
/// it anew would give every workload another trust domain and another CA.
fn refuse_remains(
    database: &Database,
    trust_domain: bool,
    authority: bool,
    events: u64,
) -> Result<(), StoreError> {
    let missing = match (trust_domain, authority, events) {
        (true, true, _) | (false, false, 0) => return Ok(()),
        (true, false, _) => "its CA",
        (false, true, _) => "its trust domain",
        (false, false, _) => "its trust domain and its CA",
    };
    Err(StoreError::Damaged(format!(
        "{database} has lost {missing}: restore it from a backup, or move it away to start anew"
    )))
}

fn stored_trust_domain(name: &str, foundation: &Foundation) -> Result<TrustDomain, OpenError> {
    let trust_domain = TrustDomain::parse(name)
        .map_err(|error| StoreError::Damaged(format!("the trust domain {name:?}: {error}")))?;
    if let Some(wanted) = &foundation.trust_domain
        && *wanted != trust_domain
    {
        return Err(OpenError::TrustDomain {
            stored: trust_domain,
            wanted: wanted.clone(),
        });
    }
    Ok(trust_domain)
}

/// Does what is due of the keys' lives before anybody is served.
async fn start_keys(store: &Store, keys: &Arc<Keys>, now: SystemTime) -> Result<(), OpenError> {
    let keys = keys.clone();
    store
        .write::<_, RotationError, _>(move |tx| {
            let keys = keys.clone();
            Box::pin(async move { keys.rotation("issuer", now).start(tx).await })
        })
        .await?;
    Ok(())
}

/// Makes trust domain and keys, unless they are there; the name of the trust domain.
async fn found(store: &Store, keys: &Arc<Keys>, now: SystemTime) -> Result<String, OpenError> {
    let keys = keys.clone();
    let name = store
        .write::<_, RotationError, _>(move |tx| {
            let keys = keys.clone();
            Box::pin(async move {
                let connection = tx.connection().await?;
                if let Some(name) = settings::read(connection, settings::TRUST_DOMAIN).await? {
                    return Ok(name);
                }
                // Seconds since 1970: a store that is made anew for the same
                // trust domain still counts on (TB-03).
                let sequence = crate::store::to_millis(now) / 1000;
                let name = keys.trust_domain.as_str();
                settings::insert(tx, settings::TRUST_DOMAIN, name).await?;
                settings::insert(tx, settings::BUNDLE_SEQUENCE, &sequence.to_string()).await?;
                let mut spare = Vec::new();
                keys.rotation("issuer", now).advance(tx, &mut spare).await?;
                Ok(name.to_owned())
            })
        })
        .await?;
    Ok(name)
}

fn new_trust_domain(foundation: &Foundation) -> TrustDomain {
    foundation.trust_domain.clone().unwrap_or_else(|| {
        let default = foundation.default_trust_domain.clone();
        tracing::warn!(
            trust_domain = %default,
            "no trust domain was named: the default is taken, and cannot be changed later; \
             for real use start anew with --trust-domain"
        );
        default
    })
}

/// Why the issuer cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another trust domain was named than the store is of.
    #[error(
        "the trust domain {wanted:?} was asked for, but this store is of {stored:?} for good: drop --trust-domain, or choose another --data-dir",
        wanted = .wanted.as_str(), stored = .stored.as_str()
    )]
    TrustDomain {
        /// What the store says.
        stored: TrustDomain,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// The key file is not usable.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The keys are not usable.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A key cannot be made.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
