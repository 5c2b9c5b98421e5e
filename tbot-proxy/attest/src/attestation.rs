//! All attestors together: one process in, one tree of attributes out.
//!
//! Attestors run side by side, each with its time limit, so the slowest bounds the
//! whole; signatures of an image are looked for when the others have said which it is. One that fails, hangs or finds nothing leaves its attributes absent, and
//! says why; rules that ask for them then do not match. `unix` is the ground of the
//! others: if it does not know the process (it ended, or acts as another user than
//! the one who connected), nothing that was read counts.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use hashlink::LruCache;
use serde_json::{Map, Value};
use telemetry::Throttle;

#[cfg(feature = "sigstore")]
use crate::sigstore::{Sigstore, SigstoreConfig};
use crate::{
    attestor::{Attestor, Failure, Found},
    engine::{Engine, EngineConfig, Kind},
    kubernetes::{Kubernetes, KubernetesConfig},
    process::Process,
    systemd::{Systemd, SystemdConfig},
    unix::{Unix, UnixConfig},
};

/// So many reasons are remembered, not to be logged again.
const TOLD: usize = 1024;

/// Which attestors there are, and their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The process itself; always on.
    pub unix: UnixConfig,
    /// Its systemd unit, if set.
    pub systemd: Option<SystemdConfig>,
    /// Its container of Docker, if set.
    pub docker: Option<EngineConfig>,
    /// Its container of Podman, if set.
    pub podman: Option<EngineConfig>,
    /// Its pod of Kubernetes, if set.
    pub kubernetes: Option<KubernetesConfig>,
    /// What is signed for the image of its container, if set.
    #[cfg(feature = "sigstore")]
    pub sigstore: Option<SigstoreConfig>,
    /// How long each attestor may take. Default: 10 s.
    pub time_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unix: UnixConfig::default(),
            systemd: None,
            docker: None,
            podman: None,
            kubernetes: None,
            #[cfg(feature = "sigstore")]
            sigstore: None,
            time_limit: Duration::from_secs(10),
        }
    }
}

/// The attestors of one agent. Made once: they keep hashes and answers of runtimes.
#[derive(Debug)]
pub struct Attestors {
    attestors: Vec<Attestor>,
    #[cfg(feature = "sigstore")]
    sigstore: Option<Sigstore>,
    time_limit: Duration,
    told: Mutex<Told>,
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// The tree below `workload`: `{"unix": {"attested": true, "pid": 1, …}, …}`, by
    /// the names of the issuer's schema. A group that was not attested is not there.
    pub attributes: Value,
    /// Which attestors could not say all they are asked, and why.
    pub failures: Vec<Failure>,
    /// Attestors to which the process does not belong: it is in no container, the engine
    /// has none of its id, it is in no unit. No failure, but worth telling.
    pub not_applicable: Vec<Failure>,
    /// How long all of it took.
    pub took: Duration,
}

impl Attestors {
    /// Attestors as configured. No file or socket is opened yet.
    pub fn new(config: Config) -> Self {
        let mut attestors = vec![Attestor::Unix(Unix::new(config.unix))];
        if let Some(systemd) = config.systemd {
            attestors.push(Attestor::Systemd(Systemd::new(systemd)));
        }
        let limit = config.time_limit;
        for (kind, engine) in [(Kind::Docker, config.docker), (Kind::Podman, config.podman)] {
            attestors
                .extend(engine.map(|engine| Attestor::Engine(Engine::new(kind, engine, limit))));
        }
        if let Some(kubernetes) = config.kubernetes {
            attestors.push(Attestor::Kubernetes(Kubernetes::new(kubernetes, limit)));
        }
        metrics::describe_histogram!(
            "tbot_attestation_seconds",
            metrics::Unit::Seconds,
            "Time of one attestor for one process"
        );
        metrics::describe_counter!(
            "tbot_attestation_failures_total",
            "Attestations that left attributes absent, by attestor"
        );
        Self {
            attestors,
            #[cfg(feature = "sigstore")]
            sigstore: config.sigstore.map(Sigstore::new),
            time_limit: limit,
            told: Mutex::default(),
        }
    }

    /// What all attestors know of this process now. Never fails and never hangs:
    /// what could not be found out is absent, with a reason.
    pub async fn attest(&self, process: &Process) -> Attestation {
        let start = Instant::now();
        let answers = join_all(
            self.attestors
                .iter()
                .map(|attestor| self.ask(attestor, process)),
        )
        .await;
        let mut attributes = Map::new();
        let (mut failures, mut not_applicable) = (Vec::new(), Vec::new());
        let mut take = |attributes: &mut Map<_, _>, name: &'static str, found: Found| {
            if let Some(group) = found.attributes {
                attributes.insert(name.to_owned(), group);
            }
            let with_name = |reason| Failure {
                attestor: name,
                reason,
            };
            failures.extend(found.failures.into_iter().map(with_name));
            not_applicable.extend(found.not_applicable.map(with_name));
        };
        for (attestor, found) in self.attestors.iter().zip(answers) {
            take(&mut attributes, attestor.name(), found);
        }
        // Which image it is, the others say.
        #[cfg(feature = "sigstore")]
        if let Some(sigstore) = &self.sigstore {
            let begun = Instant::now();
            let found = sigstore.attest(&attributes).await;
            metrics::histogram!("tbot_attestation_seconds", "attestor" => "sigstore")
                .record(begun.elapsed());
            take(&mut attributes, "sigstore", found);
        }
        // What ended or became another user's meanwhile is nobody that was attested.
        if !attributes.is_empty()
            && let Err(error) = process.check_alive()
        {
            attributes.clear();
            failures.push(Failure {
                attestor: "unix",
                reason: error.to_string(),
            });
        }
        if !attributes.contains_key("unix") {
            attributes.clear();
        }
        self.tell(process, &failures);
        Attestation {
            attributes: Value::Object(attributes),
            failures,
            not_applicable,
            took: start.elapsed(),
        }
    }

    pub(crate) fn attestors(&self) -> &[Attestor] {
        &self.attestors
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.time_limit
    }

    /// Counts each attestor that failed, and logs each reason once, unless there are very
    /// many.
    fn tell(&self, process: &Process, failures: &[Failure]) {
        let mut counted = "";
        for failure in failures {
            // The failures of one attestor stand together.
            if counted != failure.attestor {
                counted = failure.attestor;
                metrics::counter!("tbot_attestation_failures_total", "attestor" => counted)
                    .increment(1);
            }
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(held_back) = told.pass(failure) {
                tracing::info!(
                    pid = process.pid(),
                    attestor = failure.attestor,
                    reason = failure.reason,
                    held_back,
                    "attributes of a workload are absent"
                );
            }
        }
    }

    async fn ask(&self, attestor: &Attestor, process: &Process) -> Found {
        let start = Instant::now();
        let found = match tokio::time::timeout(
            self.time_limit,
            attestor.attest(process, start + self.time_limit),
        )
        .await
        {
            Ok(found) => found,
            Err(_) => Found::failed(format!(
                "no answer within {:?}, the time limit of an attestor",
                self.time_limit
            )),
        };
        metrics::histogram!("tbot_attestation_seconds", "attestor" => attestor.name())
            .record(start.elapsed());
        found
    }
}

/// What was logged lately: every renewal would say the same again. Reasons have names in
/// them that workloads choose, so each attestor has so many lines and no more.
#[derive(Debug)]
struct Told {
    reasons: LruCache<Failure, ()>,
    lines: HashMap<&'static str, Throttle>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            reasons: LruCache::new(TOLD),
            lines: HashMap::new(),
        }
    }
}

impl Told {
    /// Whether a failure is to be logged: with how many lines were held back before it.
    /// One that is held back is new the next time.
    fn pass(&mut self, failure: &Failure) -> Option<u64> {
        if self.reasons.get(failure).is_some() {
            return None;
        }
        let lines = self.lines.entry(failure.attestor);
        let held_back = lines.or_insert_with(Throttle::ten_a_minute).pass()?;
        self.reasons.insert(failure.clone(), ());
        Some(held_back)
    }
}

#[cfg(test)]
mod tests;
