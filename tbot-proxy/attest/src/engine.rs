//! Containers of Docker and Podman: which one, by its cgroup; what it is, by the
//! engine's socket.
//!
//! An engine is believed about its own containers only. That the process is in the
//! container it claims is proved by the kernel: the container's first process, which
//! the engine names, must be in the very cgroup that the process's path leads
//! through. A cgroup of the right name somewhere else proves nothing.
//!
//! What an engine said of a container is used for a while longer if it cannot be asked
//! again: one that is restarted takes no identity from containers that run on. Image and
//! labels of a container do not change.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashlink::LruCache;
use http_client::Client;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    attestor::Found,
    container::{Place, PlaceError, own_container},
    process::Process,
    procfs::mountinfo,
};

pub mod inspect;
#[cfg(test)]
mod tests;

use self::inspect::Inspected;

/// Questions to an engine at one time.
const AT_ONCE: usize = 8;
/// The largest answer, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// How long an engine is waited for that is asked again about a container.
const AGAIN: Duration = Duration::from_secs(1);
/// The cgroup namespace of the host (`PROC_CGROUP_INIT_INO` of the kernel).
const HOST_CGROUPS: &str = "cgroup:[4026531835]";

/// How containers of an engine are attested.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The engine's Unix socket. Whoever may use it may do anything on the host, the
    /// agent too.
    pub socket: PathBuf,
    /// How long an answer about a container is used. Default: 10 s.
    pub kept_for: Duration,
    /// How long an answer about a container is used while the engine gives no other.
    /// Default: 10 min.
    pub kept_when_away: Duration,
    /// About how many containers answers are kept. Default: 1,024.
    pub kept: usize,
}

impl EngineConfig {
    /// An engine at this socket, all else by default.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            kept_for: Duration::from_secs(10),
            kept_when_away: Duration::from_secs(600),
            kept: 1024,
        }
    }

    /// Docker where its packages put it: `/run/docker.sock`.
    pub fn docker() -> Self {
        Self::new("/run/docker.sock")
    }

    /// Podman of root where its packages put it: `/run/podman/podman.sock`.
    pub fn podman() -> Self {
        Self::new("/run/podman/podman.sock")
    }
}

/// Whose API it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Docker,
    Podman,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}

pub(crate) struct Engine {
    kind: Kind,
    client: Client,
    kept_for: Duration,
    kept_when_away: Duration,
    kept: Mutex<LruCache<String, Kept>>,
    places: Semaphore,
    own: OnceLock<Option<String>>,
}

/// A container, or that the engine has none of this id.
type Answer = Option<Arc<Facts>>;

/// An answer, when it was asked for, and when it was asked for again in vain.
#[derive(Clone)]
struct Kept {
    answer: Answer,
    asked: Instant,
    tried: Instant,
}

/// Why an engine's word is not known.
struct Failure {
    why: String,
    /// It gave no answer; the one before may be used.
    is_away: bool,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self {
            why,
            is_away: false,
        }
    }
}

/// What an engine said of a container, once it was checked.
struct Facts {
    attributes: Value,
    /// What is absent, and why.
    failures: Vec<String>,
    /// The cgroups of its first process; none if it does not run.
    cgroups: Vec<(u32, String)>,
}

impl Engine {
    pub(crate) fn new(kind: Kind, config: EngineConfig, time_limit: Duration) -> Self {
        Self {
            kind,
            client: Client::unix(config.socket)
                .time_limit(time_limit)
                .max_body(MAX_ANSWER),
            kept_for: config.kept_for,
            kept_when_away: config.kept_when_away,
            kept: Mutex::new(LruCache::new(config.kept)),
            places: Semaphore::new(AT_ONCE),
            own: OnceLock::new(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) async fn attest(&self, process: &Process) -> Found {
        let (id, cgroups) = match Place::of(process) {
            Ok(Place::In(container)) => (container.id, Some(container.cgroups)),
            Ok(Place::Here) if let Some(own) = self.own() => (own.to_owned(), None),
            Ok(_) => return Found::not_applicable("the process is in no container"),
            Err(error) => return Found::failed(error),
        };
        match self.facts(&id, cgroups.as_deref()).await {
            Ok(Some(facts)) => Found {
                attributes: Some(facts.attributes.clone()),
                failures: facts.failures.clone(),
                ..Found::default()
            },
            Ok(None) => Found::not_applicable(format!("{} has no container {id}", self.kind)),
            Err(reason) => Found::failed(reason),
        }
    }

    /// The facts of a container whose first process is in these cgroups, kept or new.
    async fn facts(&self, id: &str, cgroups: Option<&[(u32, String)]>) -> Result<Answer, String> {
        let fits = |answer: &Answer| match (answer, cgroups) {
            (Some(facts), Some(cgroups)) => {
                cgroups.iter().all(|cgroup| facts.cgroups.contains(cgroup))
            }
            _ => true,
        };
        if let Some(kept) = self.kept(id).filter(&fits) {
            return Ok(kept);
        }
        let _place = self.places.acquire().await.map_err(|e| e.to_string())?;
        if let Some(kept) = self.kept(id).filter(&fits) {
            return Ok(kept);
        }
        let before = self.all_kept().get(id).cloned().filter(|before| {
            before.answer.is_some()
                && fits(&before.answer)
                && before.asked.elapsed() < self.kept_when_away
        });
        let asked = Instant::now();
        let answer = match &before {
            None => self.ask(id).await,
            Some(_) => timeout(AGAIN, self.ask(id)).await.unwrap_or_else(|_| {
                Err(Failure {
                    why: format!("no answer within {AGAIN:?}"),
                    is_away: true,
                })
            }),
        };
        let answer = match (answer, before) {
            (Ok(answer), _) => answer.map(Arc::new),
            (Err(failure), Some(before)) if failure.is_away => {
                tracing::warn!(
                    engine = %self.kind,
                    container = id,
                    error = failure.why,
                    "what was known of the container is used"
                );
                let answer = before.answer.clone();
                let tried = Instant::now();
                let kept = Kept { tried, ..before };
                self.all_kept().insert(id.to_owned(), kept);
                return Ok(answer);
            }
            (Err(failure), _) => return Err(failure.why),
        };
        let fits = fits(&answer);
        let kept = Kept {
            answer: answer.clone(),
            asked,
            tried: asked,
        };
        self.all_kept().insert(id.to_owned(), kept);
        if fits {
            Ok(answer)
        } else {
            Err(format!(
                "the process is in a cgroup named for container {id}, but {} runs that container \
                 in another",
                self.kind
            ))
        }
    }

    fn all_kept(&self) -> MutexGuard<'_, LruCache<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, id: &str) -> Option<Answer> {
        let mut all = self.all_kept();
        let kept = all.get(id)?;
        let is_current =
            kept.tried.elapsed() < self.kept_for && kept.asked.elapsed() < self.longest();
        is_current.then(|| kept.answer.clone())
    }

    /// Nothing is used for longer.
    fn longest(&self) -> Duration {
        self.kept_when_away.max(self.kept_for)
    }

    /// The engine's word about a container; none if it has none of this id.
    async fn ask(&self, id: &str) -> Result<Option<Facts>, Failure> {
        let text = |error: &dyn fmt::Display| error.to_string();
        let Some(bytes) = self.get(&format!("containers/{id}/json")).await? else {
            return Ok(None);
        };
        let inspected = inspect::container(&bytes).map_err(|error| text(&error))?;
        if inspected.id != id {
            let why = format!(
                "{} was asked for container {id} and answered with {}",
                self.kind, inspected.id
            );
            return Err(why.into());
        }
        let mut failures = Vec::new();
        let digest = match self.digest(&inspected).await {
            Ok(digest) => digest,
            Err(failure) if failure.is_away => return Err(failure),
            Err(failure) => {
                failures.push(format!("image_digest: {}", failure.why));
                None
            }
        };
        let mut attributes = json!({
            "attested": true,
            "container": {
                "name": inspected.name,
                "image": inspected.image,
                "image_digest": digest,
                "labels": inspected.labels,
            },
        });
        if let Some(pod) = &inspected.pod {
            let bytes = self.get(&format!("pods/{pod}/json")).await?;
            let bytes = bytes.ok_or_else(|| format!("Podman has no pod {pod}"))?;
            let pod = inspect::pod(&bytes).map_err(|error| text(&error))?;
            attributes["pod"] = json!({ "name": pod.name, "labels": pod.labels });
        }
        Ok(Some(Facts {
            attributes,
            failures,
            cgroups: self.cgroups(&inspected)?,
        }))
    }

    async fn digest(&self, inspected: &Inspected) -> Result<Option<String>, Failure> {
        if self.kind == Kind::Podman || inspected.image_digest.is_some() {
            return Ok(inspected.image_digest.clone());
        }
        match self
            .get(&format!("images/{}/json", inspected.image_id))
            .await?
        {
            Some(bytes) => inspect::image_digest(&bytes, &inspected.image)
                .map_err(|error| error.to_string())?
                .map(Some)
                .ok_or_else(|| "no registry knows the image".to_owned().into()),
            None => Err("the image is not there any more".to_owned().into()),
        }
    }

    /// Where the container's first process is. Its number means something only in the
    /// engine's PID namespace, which is the agent's if it sees other containers' processes.
    fn cgroups(&self, inspected: &Inspected) -> Result<Vec<(u32, String)>, String> {
        if self.own().is_some_and(|own| own == inspected.id) {
            return Ok(Vec::new());
        }
        let first = Process::of_pid(inspected.pid)
            .map_err(PlaceError::from)
            .and_then(|process| {
                let place = Place::of(&process)?;
                process.check_alive()?;
                Ok(place)
            })
            .map_err(|error| {
                format!(
                    "the first process of container {} (PID {} by {}): {error}",
                    inspected.id, inspected.pid, self.kind
                )
            })?;
        Ok(match first {
            Place::In(first) if first.id == inspected.id => first.cgroups,
            _ => Vec::new(),
        })
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>, Failure> {
        let away = |why| Failure { why, is_away: true };
        let uri = match self.kind {
            Kind::Docker => format!("http://docker/{path}"),
            Kind::Podman => format!("http://podman/v3.0.0/libpod/{path}"),
        };
        let answer = self
            .client
            .get(&uri, None)
            .await
            .map_err(|error| away(error.to_string()))?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.into_body())),
            404 => Ok(None),
            status => Err(away(format!(
                "{} answered {uri} with status {status}",
                self.kind
            ))),
        }
    }

    /// The container that the agent is in, if it has a cgroup namespace of its own: a
    /// process without a container on its path is then in the same one.
    fn own(&self) -> Option<&str> {
        self.own
            .get_or_init(|| {
                let namespace = std::fs::read_link("/proc/self/ns/cgroup").ok()?;
                if namespace.as_os_str() == HOST_CGROUPS {
                    return None;
                }
                let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
                own_container(&mountinfo(&mounts).ok()?)
            })
            .as_deref()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("kind", &self.kind)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
