//! The issuer at work: its store and its authority, opened together.
//!
//! First start is one transaction: trust domain, CA and their audit event are
//! all there, or nothing is and the next start is the first again. A start after
//! the CA's end makes a new CA for the same trust domain.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::{TrustBundle, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::{
    audit::{Event, EventName, windows::Windows},
    authority::{Authority, AuthorityError, keyfile::KeyFileError, keyfile::SealingKey, rfc3339},
    store::{
        DataDirectory, FILE, Store, StoreError, audit, authorities, authorities::StoredAuthority,
        settings,
    },
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
}

/// Store and authority of a trust domain.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The system of record.
    pub store: Store,
    /// Who signs.
    pub authority: Arc<Authority>,
    /// What agents are to trust.
    pub bundle: Arc<TrustBundle>,
    /// The newest renewal epoch when the issuer started.
    pub renew_epoch: u64,
    /// Who was refused lately for what costs nothing to repeat.
    pub refused: Arc<Windows>,
    /// The window of that epoch's order.
    pub renew_within: Duration,
}

impl Issuer {
    /// Opens the store in `directory`, making the CA if it is new.
    pub async fn open(
        directory: &DataDirectory,
        foundation: &Foundation,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        let path = directory.file(FILE);
        let is_new = !path.exists();
        let key_file = foundation
            .key_file
            .clone()
            .unwrap_or_else(|| directory.file(KEY_FILE));
        // Before the database is made: an unusable key file leaves no trace.
        let mut key = None;
        if is_new {
            key = Some(SealingKey::open(&key_file, true)?);
        }
        let store = Store::open(&path).await?;
        let (founded, stored, events) = {
            let mut connection = store.read().await?;
            (
                settings::read(&mut connection, settings::TRUST_DOMAIN).await?,
                authorities::list(&mut connection).await?,
                audit::last_sequence(&mut connection).await?,
            )
        };
        refuse_remains(&path, founded.is_some(), !stored.is_empty(), events)?;
        let key = match key {
            Some(key) => key,
            None => SealingKey::open(&key_file, stored.is_empty())?,
        };
        let authority = match founded {
            Some(name) => {
                let trust_domain = stored_trust_domain(&name, foundation)?;
                match load(&trust_domain, stored, &key, now)? {
                    Some(authority) => authority,
                    None => succeed(&store, &trust_domain, &key, now).await?,
                }
            }
            None => found(&store, foundation, &key, now).await?,
        };
        let (sequence, renew_epoch, renew_within) = {
            let mut connection = store.read().await?;
            (
                settings::read_number(&mut connection, settings::BUNDLE_SEQUENCE).await?,
                settings::read_number(&mut connection, settings::RENEW_EPOCH).await?,
                settings::read_number(&mut connection, settings::RENEW_WITHIN).await?,
            )
        };
        let bundle = authority
            .bundle(sequence)
            .map_err(|error| OpenError::Bundle(error.to_string()))?;
        Ok(Self {
            store,
            authority: Arc::new(authority),
            bundle: Arc::new(bundle),
            renew_epoch,
            refused: Arc::default(),
            renew_within: Duration::from_millis(renew_within),
        })
    }

    /// Tells the log every hour when the CA's end is near, until the issuer drains.
    pub async fn warn_of_its_end(self: Arc<Self>, mut draining: watch::Receiver<bool>) {
        loop {
            if let Some(warning) = self.authority.end_is_near(SystemTime::now()) {
                tracing::warn!("{warning}");
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(3600)) => {}
                // An error means that the process is ending.
                _ = draining.wait_for(|draining| *draining) => return,
            }
        }
    }

    /// Records a refusal that costs `source` nothing to repeat: once a window, with
    /// the number of refusals that the record stands for.
    pub async fn record_refusal(&self, source: &str, event: Event) -> Result<(), StoreError> {
        let Some(attempts) = self.refused.count(source, Instant::now()) else {
            return Ok(());
        };
        let (event, now) = (event.with("attempts", attempts), SystemTime::now());
        self.store
            .write(move |tx| {
                Box::pin(async move { audit::append(tx, &event, now).await.map(|_| ()) })
            })
            .await
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }
}

/// First start is one transaction, so a store holds trust domain, CA and audit
/// events together or none of them. What lacks some of them was damaged: to found
/// it anew would give every workload another trust domain and another CA.
fn refuse_remains(
    path: &Path,
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
        "{} has lost {missing}: restore the data directory from a backup, or move it away to start anew",
        path.display()
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

/// The newest authority that is valid now; else (the clock is behind) the newest
/// that has not ended; none if all have ended.
fn load(
    trust_domain: &TrustDomain,
    stored: Vec<StoredAuthority>,
    key: &SealingKey,
    now: SystemTime,
) -> Result<Option<Authority>, OpenError> {
    let mut newest = None;
    for stored in stored {
        let pkcs8 = key.open_sealed(trust_domain, &stored.key_id, &stored.sealed_key)?;
        let certificate = CertificateDer::from(stored.certificate);
        let authority = Authority::load(trust_domain, certificate, &pkcs8)?;
        if authority.is_valid_at(now) {
            return Ok(Some(authority));
        }
        if newest.is_none() && now < authority.not_after() {
            newest = Some(authority);
        }
    }
    Ok(newest)
}

/// Makes a new authority for a trust domain whose authorities have all ended.
/// Nothing that they signed is valid any more, so nothing breaks that works; every
/// agent must join again, and must be told the new pin before it can.
async fn succeed(
    store: &Store,
    trust_domain: &TrustDomain,
    key: &SealingKey,
    now: SystemTime,
) -> Result<Authority, OpenError> {
    let (authority, stored, event) = make(trust_domain, key, now)?;
    let event = event.with("cause", "the authority before it has expired");
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move {
                let connection = tx.connection();
                let old = settings::read_number(connection, settings::BUNDLE_SEQUENCE).await?;
                let sequence = (old + 1).to_string();
                settings::write(connection, settings::BUNDLE_SEQUENCE, &sequence).await?;
                authorities::add(connection, &stored, now).await?;
                audit::append(tx, &event, now).await
            })
        })
        .await?;
    tracing::error!(
        ca_pin = authority.pin(),
        ca_not_after = rfc3339(authority.not_after()),
        "the CA certificate had expired: a NEW CA was made; give its pin (`ca_pins`) and a new \
         token (`issuer bot add`) to every agent, none can connect until then"
    );
    Ok(authority)
}

/// A new authority, as it is stored, and the event that tells of it.
fn make(
    trust_domain: &TrustDomain,
    key: &SealingKey,
    now: SystemTime,
) -> Result<(Authority, StoredAuthority, Event), OpenError> {
    let (authority, pkcs8) = Authority::create(trust_domain, now)?;
    let stored = StoredAuthority {
        key_id: authority.key_id(),
        certificate: authority.certificate().to_vec(),
        sealed_key: key.seal(trust_domain, &authority.key_id(), &pkcs8)?,
    };
    let event = Event::success(EventName::AuthorityCreate)
        .with("trust_domain", trust_domain.as_str())
        .with("key_id", authority.key_id())
        .with("ca_pin", authority.pin())
        .with_time("not_after", authority.not_after())
        .with("user", "issuer");
    Ok((authority, stored, event))
}

async fn found(
    store: &Store,
    foundation: &Foundation,
    key: &SealingKey,
    now: SystemTime,
) -> Result<Authority, OpenError> {
    let trust_domain = match &foundation.trust_domain {
        Some(trust_domain) => trust_domain.clone(),
        None => {
            let default = foundation.default_trust_domain.clone();
            tracing::warn!(
                trust_domain = %default,
                "no trust domain was named: the default is taken, and cannot be changed later; \
                 for real use start anew with --trust-domain"
            );
            default
        }
    };
    let (authority, stored, event) = make(&trust_domain, key, now)?;
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move {
                // Seconds since 1970: a store that is made anew for the same
                // trust domain still counts on (TB-03).
                let sequence = crate::store::to_millis(now) / 1000;
                let connection = tx.connection();
                settings::insert(connection, settings::TRUST_DOMAIN, trust_domain.as_str()).await?;
                settings::insert(connection, settings::BUNDLE_SEQUENCE, &sequence.to_string())
                    .await?;
                authorities::add(connection, &stored, now).await?;
                audit::append(tx, &event, now).await
            })
        })
        .await?;
    Ok(authority)
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
    /// The CA is not usable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The trust bundle cannot be made.
    #[error("the trust bundle cannot be made: {0}")]
    Bundle(String),
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
