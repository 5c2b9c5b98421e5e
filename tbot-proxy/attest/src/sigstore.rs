//! What is signed for the image of a container: looked for in the image's registry, and
//! sent to the issuer as it was found. Nothing is verified here.
//!
//! A registry is far away, slow, and not always there. So it is asked by a task of its
//! own, once for an image however many ask; whoever asks waits no longer than
//! [`SigstoreConfig::time_limit`], and the answer is there for the next. What was found is
//! kept, and served on while the registry cannot be asked, with a word that it is old: what
//! is signed of an image stays signed. Everything that a registry may answer is bounded,
//! and it is believed in nothing: what it sends has the digest that was asked for, or does
//! not count. It cannot make the agent ask an address inside of the network (see
//! [`private`]).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use hashlink::LruCache;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::attestor::Found;

mod collect;
mod configuration;
mod convert;
mod credentials;
mod manifest;
pub mod private;
mod reference;
mod registry;
#[cfg(test)]
mod tests;

use self::registry::Registry;
pub use self::{
    configuration::SigstoreConfig,
    convert::{attestation, signature},
    manifest::{Descriptor, Manifest},
    private::Prefix,
    reference::{Image, is_host},
};

/// Most signatures of an image that are sent; the issuer takes no more.
pub const MAX_SIGNATURES: usize = 16;
/// Most bytes of all signatures of an image; the issuer takes no more.
pub const MAX_BYTES: usize = 512 * 1024;
/// Images that are looked for at one time.
const AT_ONCE: usize = 4;
/// How long a look-up may take in all.
const LOOK_UP: Duration = Duration::from_secs(30);
/// How soon a registry that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(15);
/// How long who has an old answer waits for a new one.
const WITH_OLD_ANSWER: Duration = Duration::from_secs(1);
/// Images whose signatures are held for requests to the issuer.
const HELD: usize = 256;

/// A signature or attestation of an image, as it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageSignature {
    /// A Sigstore bundle, JSON.
    pub bundle: Vec<u8>,
    /// In cosign's older form: what the signature in the bundle is over. Else empty.
    pub simple_signing: Vec<u8>,
}

impl fmt::Debug for ImageSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bundle, signed) = (self.bundle.len(), self.simple_signing.len());
        write!(f, "ImageSignature({bundle} and {signed} bytes)")
    }
}

/// Signatures by `signatures_hash`: attributes name them, requests to the issuer carry them.
static HELD_BY_HASH: LazyLock<Mutex<LruCache<String, Arc<[ImageSignature]>>>> =
    LazyLock::new(|| Mutex::new(LruCache::new(HELD)));

/// The signatures that attributes of a workload (the tree below `workload`) name.
pub fn signatures_of(workload: &Value) -> Option<Arc<[ImageSignature]>> {
    let hash = workload.pointer("/sigstore/signatures_hash")?.as_str()?;
    lock(&HELD_BY_HASH).get(hash).cloned()
}

/// What was found for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signatures {
    all: Arc<[ImageSignature]>,
    hash: Option<String>,
    /// What was not taken, and why.
    left_out: Vec<String>,
}

impl Signatures {
    fn new(all: Vec<ImageSignature>, left_out: Vec<String>) -> Self {
        let hash = (!all.is_empty()).then(|| {
            let mut context = Context::new(&SHA256);
            for part in all
                .iter()
                .flat_map(|one| [&one.bundle, &one.simple_signing])
            {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            hex::encode(context.finish())
        });
        Self {
            all: all.into(),
            hash,
            left_out,
        }
    }
}

/// Looks for signatures.
pub(crate) struct Sigstore(Arc<Shared>);

struct Shared {
    registry: Registry,
    config: SigstoreConfig,
    known: Mutex<Known>,
    places: Semaphore,
}

struct Known {
    answers: LruCache<Image, Answer>,
    /// Look-ups under way; the sender goes when one has ended.
    running: HashMap<Image, watch::Receiver<()>>,
}

/// What is known of an image.
#[derive(Clone)]
struct Answer {
    asked: Instant,
    found: Option<Arc<Signatures>>,
    /// Why the last look-up found nothing out.
    error: Option<String>,
}

impl Sigstore {
    pub(crate) fn new(config: SigstoreConfig) -> Self {
        metrics::describe_counter!(
            "tbot_sigstore_lookups_total",
            "Look-ups of the signatures of an image in its registry, by result"
        );
        Self(Arc::new(Shared {
            registry: Registry::new(&config),
            known: Mutex::new(Known {
                answers: LruCache::new(config.kept),
                running: HashMap::new(),
            }),
            places: Semaphore::new(AT_ONCE),
            config,
        }))
    }

    /// What is signed for the image that the attributes of a container name.
    pub(crate) async fn attest(&self, workload: &serde_json::Map<String, Value>) -> Found {
        let Some((image, digest)) = image_of(workload) else {
            return Found::not_applicable("the process is in no container whose image is known");
        };
        let image = match Image::parse(image, digest) {
            Ok(image) => image,
            Err(why) => return Found::not_applicable(why),
        };
        let fresh = |answer: &Answer| {
            let lasts = match answer.error {
                None => self.0.config.kept_for,
                Some(_) => AGAIN,
            };
            answer.asked.elapsed() < lasts
        };
        let known = self.0.known().answers.get(&image).cloned();
        let is_old = match &known {
            Some(answer) if fresh(answer) => return found(&image, answer.clone()),
            Some(answer) => answer.found.is_some(),
            None => false,
        };
        let limit = self.0.config.time_limit;
        let patience = if is_old {
            limit.min(WITH_OLD_ANSWER)
        } else {
            limit
        };
        let mut ended = self.0.clone().look_up(&image);
        // An error says that the look-up has ended.
        let waited = timeout(patience, ended.changed()).await;
        match self.0.known().answers.get(&image).cloned() {
            Some(answer) if waited.is_ok() || answer.found.is_some() => found(&image, answer),
            _ => Found::failed(format!(
                "no answer of the registry of {image} within {patience:?}; it is waited for, \
                 and looked at when the workload is attested again"
            )),
        }
    }
}

fn found(image: &Image, answer: Answer) -> Found {
    let Some(signatures) = answer.found else {
        let why = answer.error.unwrap_or_default();
        return Found::failed(format!("signatures of {image}: {why}"));
    };
    if let Some(hash) = &signatures.hash {
        lock(&HELD_BY_HASH).insert(hash.clone(), signatures.all.clone());
    }
    let mut failures = signatures.left_out.clone();
    failures.extend(
        answer
            .error
            .map(|why| format!("signatures of {image} are those found before, for now: {why}")),
    );
    Found {
        attributes: Some(json!({
            "attested": true,
            "image_digest": image.digest(),
            "signature_count": signatures.all.len(),
            "signatures_hash": signatures.hash,
        })),
        failures,
        not_applicable: None,
    }
}

/// Name and digest of the image of the container, as an attestor of containers has it.
fn image_of(workload: &serde_json::Map<String, Value>) -> Option<(&str, &str)> {
    ["kubernetes", "docker", "podman"].iter().find_map(|group| {
        let container = workload.get(*group)?.get("container")?;
        let text = |name| container.get(name).and_then(Value::as_str);
        Some((text("image")?, text("image_digest")?))
    })
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Begins to look, unless somebody does; what tells when it has ended.
    fn look_up(self: Arc<Self>, image: &Image) -> watch::Receiver<()> {
        let mut known = self.known();
        if let Some(running) = known.running.get(image) {
            return running.clone();
        }
        let (running, ended) = watch::channel(());
        known.running.insert(image.clone(), ended.clone());
        drop(known);
        let image = image.clone();
        tokio::spawn(async move {
            let _running = Running {
                shared: self.clone(),
                image: image.clone(),
                _tells: running,
            };
            let looked = timeout(LOOK_UP, self.look(&image)).await;
            let looked = looked.unwrap_or_else(|_| Err(format!("not done within {LOOK_UP:?}")));
            let result = if looked.is_ok() { "ok" } else { "failed" };
            metrics::counter!("tbot_sigstore_lookups_total", "result" => result).increment(1);
            let mut known = self.known();
            let before = known.answers.remove(&image).and_then(|answer| answer.found);
            let (found, error) = match looked {
                Ok(found) => (Some(Arc::new(found)), None),
                Err(error) => (before, Some(error)),
            };
            let asked = Instant::now();
            known.answers.insert(
                image,
                Answer {
                    asked,
                    found,
                    error,
                },
            );
        });
        ended
    }

    async fn look(&self, image: &Image) -> Result<Signatures, String> {
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        collect::collect(&self.registry, image, &self.config.registries).await
    }
}

/// A look-up under way, until it ends, however it does.
struct Running {
    shared: Arc<Shared>,
    image: Image,
    _tells: watch::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.known().running.remove(&self.image);
    }
}

impl fmt::Debug for Sigstore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sigstore").field(&self.0.config).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
