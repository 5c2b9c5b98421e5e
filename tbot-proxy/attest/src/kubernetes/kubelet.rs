//! One list of pods for everyone who asks.
//!
//! The kubelet's only answer is the list of all pods, some ten kilobytes for each. It
//! is fetched when a container is asked for that is not in the list at hand, or when
//! that list is old; by one caller at a time, however many wait; and never sooner than
//! a stated time after the last. Who waits for a container that does not come (its
//! status lags behind the container itself) looks at each new list until it is late.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http_client::Client;
use identity::tls::AnyServer;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    sync::OwnedMutexGuard,
    time::{sleep_until, timeout_at},
};

use super::{
    KubeletVerification, KubernetesConfig, PodError, PodReference,
    pods::{Pod, PodContainer, Pods},
};

/// The largest list, in bytes: some thousand pods.
const MAX_LIST: usize = 64 << 20;
/// How long a new list is waited for if an old one has the container.
const WITH_OLD_LIST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Kubelet {
    config: KubernetesConfig,
    time_limit: Duration,
    newest: Mutex<Option<Listing>>,
    /// Held by who lists.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

/// A list and when it was asked for.
#[derive(Debug, Clone)]
struct Listing {
    asked: Instant,
    pods: Arc<Pods>,
}

/// When the kubelet was asked last, and what came of it if that was nothing.
#[derive(Debug, Default)]
struct Turn {
    asked: Option<Instant>,
    failure: Option<String>,
}

impl Kubelet {
    pub(super) fn new(config: KubernetesConfig, time_limit: Duration) -> Self {
        Self {
            config,
            time_limit,
            newest: Mutex::default(),
            turn: Arc::default(),
        }
    }

    /// The container of this id, from the list at hand if that is young enough, else
    /// from a new one; waits for a container that is not listed yet until `deadline`.
    pub(super) async fn container(
        self: &Arc<Self>,
        id: &str,
        pod_uid: Option<&str>,
        deadline: Instant,
    ) -> Result<PodContainer, String> {
        let start = Instant::now();
        // What was known a while ago is better than nothing: a container stays in its
        // pod, though labels may have changed since.
        let known = self
            .asked_since(
                start
                    .checked_sub(self.config.kept_when_away)
                    .unwrap_or(start),
            )
            .and_then(|listing| listing.pods.container(id, pod_uid).cloned());
        let patience = match known {
            Some(_) => self.config.patience.min(WITH_OLD_LIST),
            None => self.config.patience,
        };
        let until = tokio::time::Instant::from_std(deadline.min(start + patience));
        // From this time on a list is new enough.
        let mut since = start.checked_sub(self.config.kept_for).unwrap_or(start);
        let mut reason = "the kubelet has not answered".to_owned();
        let mut gone = false;
        loop {
            let failure = match timeout_at(until, self.list(since)).await {
                Ok(Ok(listing)) => {
                    if let Some(container) = listing.pods.container(id, pod_uid) {
                        return Ok(container.clone());
                    }
                    reason = match pod_uid {
                        Some(uid) if listing.pods.has_pod(uid) => format!(
                            "the kubelet lists pod {uid}, but no status of its container {id}"
                        ),
                        Some(uid) => format!("the kubelet lists no pod {uid}"),
                        None => format!("the kubelet lists no container {id}"),
                    };
                    // Looked for in this list: the next must be newer.
                    since = listing.asked + Duration::from_nanos(1);
                    gone = true;
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => format!("{reason} (waited {:?})", start.elapsed()),
            };
            return match known {
                Some(container) if !gone => {
                    tracing::warn!(reason = failure, "an older list of the kubelet is used");
                    Ok(container)
                }
                _ => Err(failure),
            };
        }
    }

    /// The pod that is meant, from a list that is no older than `age`. One that is known by
    /// its UID stays known for a while where the kubelet gives no other list.
    pub(super) async fn pod(
        self: &Arc<Self>,
        reference: &PodReference,
        age: Duration,
        deadline: Instant,
    ) -> Result<Arc<Pod>, PodError> {
        let start = Instant::now();
        let ago = |age| start.checked_sub(age).unwrap_or(start);
        let failure = match timeout_at(deadline.into(), self.list(ago(age))).await {
            Ok(Ok(listing)) => {
                let pod = listing.pods.pod(reference).cloned();
                return pod.ok_or_else(|| PodError::NotFound(reference.clone()));
            }
            Ok(Err(failure)) => failure,
            Err(_) => "the kubelet has not answered".to_owned(),
        };
        // A name may be another pod's by now.
        reference
            .uid
            .as_ref()
            .and_then(|_| self.asked_since(ago(self.config.kept_when_away)))
            .and_then(|listing| listing.pods.pod(reference).cloned())
            .ok_or(PodError::Unavailable(failure))
    }

    /// How long a list is used.
    pub(super) fn kept_for(&self) -> Duration {
        self.config.kept_for
    }

    /// A list that was asked for at `since` or later.
    async fn list(self: &Arc<Self>, since: Instant) -> Result<Listing, String> {
        if let Some(listing) = self.asked_since(since) {
            return Ok(listing);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if let Some(listing) = self.asked_since(since) {
            return Ok(listing);
        }
        // Whoever had the turn meanwhile was told so for all.
        if let (Some(asked), Some(failure)) = (turn.asked, &turn.failure)
            && asked >= since
            && asked.elapsed() < self.config.min_interval
        {
            return Err(failure.clone());
        }
        // A task of its own: the list is of use to others if this caller is late.
        tokio::spawn(Arc::clone(self).take_turn(turn))
            .await
            .map_err(|error| error.to_string())?
    }

    async fn take_turn(
        self: Arc<Self>,
        mut turn: OwnedMutexGuard<Turn>,
    ) -> Result<Listing, String> {
        if let Some(asked) = turn.asked {
            sleep_until((asked + self.config.min_interval).into()).await;
        }
        let asked = Instant::now();
        turn.asked = Some(asked);
        turn.failure = None;
        match self.ask().await {
            Ok(pods) => {
                let listing = Listing {
                    asked,
                    pods: Arc::new(pods),
                };
                let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
                *newest = Some(listing.clone());
                Ok(listing)
            }
            Err(failure) => {
                turn.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn asked_since(&self, since: Instant) -> Option<Listing> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.clone().filter(|listing| listing.asked >= since)
    }

    /// Token and certificates are read each time: they are replaced while the agent runs.
    async fn ask(&self) -> Result<Pods, String> {
        let config = &self.config;
        let url = format!("{}/pods", config.url.trim_end_matches('/'));
        let read = |path: PathBuf| async move {
            tokio::fs::read(&path)
                .await
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        let is_tls = url.starts_with("https:");
        let client = if is_tls {
            let ca = match &config.verification {
                KubeletVerification::Ca(path) => Some(read(path.clone()).await?),
                KubeletVerification::None => None,
            };
            let identity = match &config.client_certificate {
                Some((certificate, key)) => {
                    Some((read(certificate.clone()).await?, read(key.clone()).await?))
                }
                None => None,
            };
            Client::tls(tls(ca.as_deref(), identity.as_ref())?)
        } else {
            Client::plain()
        };
        // In the clear it would be whoever's.
        let token = match config.token.as_ref().filter(|_| is_tls) {
            Some(path) => {
                let bytes = read(path.clone()).await?;
                Some(
                    String::from_utf8(bytes)
                        .map_err(|_| format!("the token in {} is not UTF-8", path.display()))?,
                )
            }
            None => None,
        };
        let answer = client
            .time_limit(self.time_limit)
            .max_body(MAX_LIST)
            .get(&url, token.as_deref())
            .await
            .map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            200 => {}
            401 => {
                return Err(format!(
                    "{url} answered 401: it does not take the agent's token"
                ));
            }
            403 => {
                return Err(format!(
                    "{url} answered 403: the agent's service account needs the verb `get` on \
                     `nodes/proxy` (or `nodes/pods` where the kubelet knows it)"
                ));
            }
            status => return Err(format!("{url} answered with status {status}")),
        }
        // Megabytes of JSON: not on a thread that others wait for.
        let bytes = answer.into_body();
        tokio::task::spawn_blocking(move || Pods::read(&bytes))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("{url} answered with what is no list of pods: {error}"))
    }
}

/// The client's side of TLS, with PEM of the roots (none: any server) and of the
/// client's certificate and key.
fn tls(ca: Option<&[u8]>, identity: Option<&(Vec<u8>, Vec<u8>)>) -> Result<ClientConfig, String> {
    let text = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let provider = identity::tls::provider();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| text("TLS", &error))?;
    let builder = match ca {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| text("the kubelet's CA", &error))?;
                roots
                    .add(certificate)
                    .map_err(|error| text("the kubelet's CA", &error))?;
            }
            if roots.is_empty() {
                return Err("the file of the kubelet's CA holds no certificate".to_owned());
            }
            builder.with_root_certificates(roots)
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer)),
    };
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| text("the certificate for the kubelet", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| text("the key for the kubelet", &error))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| text("the certificate for the kubelet", &error))
}
