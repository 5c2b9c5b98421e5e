//! Whether the issuer can do its work: a list of checks by name, asked by `/readyz`,
//! by gRPC health and by a gauge. A check is cheap and asks nobody: it looks at what
//! the parts know of themselves.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use identity::IdentitySource;
use tokio::sync::watch;

use crate::{catalog::Catalog, resources::Kind, service::Issuer};

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Why that part does not work now, and what to do. Empty: it works.
    pub reasons: Vec<String>,
    /// What will be a reason if nobody acts.
    pub warnings: Vec<String>,
}

impl Finding {
    /// Whether that part works.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    /// With this as the only reason, if there is one.
    pub fn because(reason: Option<String>) -> Self {
        Self {
            reasons: reason.into_iter().collect(),
            warnings: Vec::new(),
        }
    }
}

type Check = Arc<dyn Fn(SystemTime) -> Finding + Send + Sync>;

/// The checks.
pub struct Readiness {
    checks: RwLock<BTreeMap<&'static str, Check>>,
}

impl Readiness {
    /// Those that every issuer has: `drain`, `store`, `authority`, `identity`.
    pub fn new(
        issuer: Arc<Issuer>,
        source: Arc<IdentitySource>,
        draining: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let readiness = Self {
            checks: RwLock::default(),
        };
        readiness.register("drain", move |_| {
            let stopping = *draining.borrow();
            Finding::because(stopping.then(|| "the issuer is stopping".to_owned()))
        });
        let store = issuer.store.clone();
        readiness.register("store", move |_| {
            measure(&store.catalog());
            Finding::because(store.trouble())
        });
        readiness.register("authority", move |now| authority(&issuer, now));
        readiness.register("identity", move |now| {
            let svid = source.current().svid.clone();
            let not_after = svid.map_or(SystemTime::UNIX_EPOCH, |svid| svid.not_after());
            metrics::gauge!("issuer_identity_expiry_timestamp_seconds").set(timestamp(not_after));
            let valid = not_after > now;
            Finding::because((!valid).then(|| {
                "the issuer has no valid certificate of its own: agents cannot connect (its log says why)"
                    .to_owned()
            }))
        });
        Arc::new(readiness)
    }

    /// Adds a check, or replaces the one of this name. `check` must not block.
    pub fn register(
        &self,
        name: &'static str,
        check: impl Fn(SystemTime) -> Finding + Send + Sync + 'static,
    ) {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.insert(name, Arc::new(check));
    }

    /// What each check finds, by name.
    pub fn findings(&self, now: SystemTime) -> BTreeMap<&'static str, Finding> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        let found: BTreeMap<_, _> = checks
            .iter()
            .map(|(name, check)| (*name, check(now)))
            .collect();
        for (name, finding) in &found {
            let ready = if finding.is_ready() { 1.0 } else { 0.0 };
            metrics::gauge!("issuer_ready", "check" => *name).set(ready);
        }
        found
    }

    /// Whether every part works.
    pub fn is_ready(&self, now: SystemTime) -> bool {
        self.findings(now).values().all(Finding::is_ready)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

fn authority(issuer: &Issuer, now: SystemTime) -> Finding {
    let keyring = issuer.keyring();
    let not_after = keyring.x509().not_after();
    metrics::gauge!("issuer_ca_expiry_timestamp_seconds").set(timestamp(not_after));
    let ended = not_after <= now;
    Finding {
        warnings: keyring.end_is_near(now).into_iter().collect(),
        ..Finding::because(ended.then(|| {
            "the CA certificate has ended: the log says what kept the issuer from rotating it"
                .to_owned()
        }))
    }
}

fn measure(catalog: &Catalog) {
    for kind in Kind::ALL {
        let count = catalog.count(kind) as f64;
        metrics::gauge!("issuer_catalog_resources", "kind" => kind.as_str()).set(count);
    }
    metrics::gauge!("issuer_catalog_revision").set(catalog.revision() as f64);
    metrics::gauge!("issuer_bot_instances").set(catalog.instance_count() as f64);
}

/// Seconds since 1970.
fn timestamp(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
