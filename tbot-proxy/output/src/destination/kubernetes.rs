//! A Secret of Kubernetes, kept by server-side apply under our own field manager.
//!
//! Several replicas may keep one Secret. Each write carries the `resourceVersion` that was
//! looked at, so that nobody's write is lost unseen, and the Secret says when its set was
//! issued (annotation [`ISSUED_AT`], by the issuer's clock): a set that was issued earlier
//! never replaces one of the same identity that was issued later and is good still. One that
//! was issued after it was written, by the API server's clock, comes of a wrong clock, and
//! is replaced. Keys, labels and annotations of others stay; a key that somebody else has set to another value is a conflict, which is told, and
//! taken over only with `force`.
//!
//! A Secret that is not there is created whole, so that nobody sees an empty one. What is
//! created belongs to an "update" of ours; its ownership is turned into that of an "apply" at
//! once, as `kubectl` does, or keys could not be removed later.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use kube::{
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Status,
};
use tokio::{
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{DestinationError, Written};
use crate::{Artifacts, artifact::Dated};

mod cluster;
mod set;
mod shape;

pub use self::shape::Shape;
use self::{
    cluster::{Connected, cannot_find, connect},
    set::{Theirs, at_text, has_all},
};

/// Name under which fields of the Secret are ours.
pub const FIELD_MANAGER: &str = "tbot-proxy";

/// Annotation: when the set was issued, RFC 3339.
pub const ISSUED_AT: &str = "tbot-proxy/issued-at";

/// Annotation: when it expires, RFC 3339.
pub const EXPIRES_AT: &str = "tbot-proxy/expires-at";

/// Annotation: the SPIFFE ID that it is for.
pub const SPIFFE_ID: &str = "tbot-proxy/spiffe-id";

/// How often others may be first before we give up for now.
const ATTEMPTS: usize = 8;

/// How far the clocks of an issuer and of the API server may be apart.
const SKEW: Duration = Duration::from_secs(300);

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// Which Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretConfig {
    /// Its name.
    pub name: String,
    /// Its namespace; that of the pod (`POD_NAMESPACE`, the service account) or of the
    /// kubeconfig if `None`.
    pub namespace: Option<String>,
    /// Labels that it gets.
    pub labels: BTreeMap<String, String>,
    /// Its shape.
    pub shape: Shape,
    /// The cluster; the one that this process runs in, or of `KUBECONFIG`, if `None`.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one if `None`.
    pub context: Option<String>,
    /// Whether keys that somebody else manages are taken over.
    pub force: bool,
}

/// One Secret.
#[derive(Debug)]
pub struct KubernetesSecret {
    config: SecretConfig,
    api: Option<Connected>,
    /// Somebody looks for the cluster, which may take long: a kubeconfig names programs.
    connecting: Option<Connecting>,
    last: Option<Last>,
}

type Connecting = JoinHandle<Result<Connected, DestinationError>>;

/// What we wrote last, by what it is known again.
#[derive(Debug)]
struct Last {
    uid: Option<String>,
    keys: Vec<String>,
    digest: Vec<u8>,
}

impl Last {
    /// What these keys of a Secret hold.
    fn of(secret: &Secret, keys: Vec<String>) -> Self {
        let mut context = Context::new(&SHA256);
        for key in &keys {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            let value = digest(&SHA256, value.map_or(&[], |value| &value.0));
            context.update(value.as_ref());
        }
        Self {
            uid: secret.metadata.uid.clone(),
            digest: context.finish().as_ref().to_vec(),
            keys,
        }
    }

    /// Whether it is in force still.
    fn is_in(&self, secret: &Secret) -> bool {
        let now = Self::of(secret, self.keys.clone());
        now.uid == self.uid && now.digest == self.digest
    }
}

/// What came of one attempt.
enum Attempt {
    Done(Written),
    /// Somebody else was first: look again.
    Again,
}

impl KubernetesSecret {
    /// Nobody is connected to before the first write.
    pub fn new(config: SecretConfig) -> Self {
        Self {
            config,
            api: None,
            connecting: None,
            last: None,
        }
    }

    pub(super) async fn write(
        &mut self,
        artifacts: &Artifacts,
    ) -> Result<Written, DestinationError> {
        let connected = self.connected().await?;
        for _ in 0..ATTEMPTS {
            match self.attempt(&connected, artifacts).await? {
                Attempt::Done(written) => return Ok(written),
                Attempt::Again => {}
            }
        }
        Err(self.failed(
            &connected.namespace,
            "others changed it again and again meanwhile",
        ))
    }

    /// Until when the set is good that is in the Secret, if one of ours wrote it: that one is
    /// what would be removed then.
    pub(super) async fn expiry(
        &mut self,
        documents: &[Dated],
    ) -> Result<Option<SystemTime>, DestinationError> {
        let connected = self.connected().await?;
        let found = self.get(&connected).await?.filter(|secret| {
            let mut owners = secret.metadata.managed_fields.iter().flatten();
            owners.any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
        });
        let Some(secret) = found else {
            return Ok(None);
        };
        let of_key = |key: &str| secret.data.as_ref()?.get(key);
        let known = documents.iter().find_map(|document| {
            let key = self.config.shape.key(&document.name);
            let expires = document.expires(&of_key(&key)?.0)?;
            Some((key, expires))
        });
        Ok(known.map(|(key, expires)| {
            self.last = Some(Last::of(&secret, vec![key]));
            expires
        }))
    }

    /// Deletes the Secret if the set in it is the one that we wrote last.
    pub(super) async fn remove(&mut self) -> Result<(), DestinationError> {
        if self.last.is_none() {
            return Ok(());
        }
        let connected = self.connected().await?;
        let found = self.get(&connected).await?;
        let is_ours = |secret: &Secret| self.last.as_ref().is_some_and(|last| last.is_in(secret));
        if let Some(secret) = found.filter(is_ours) {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    resource_version: secret.metadata.resource_version,
                    uid: secret.metadata.uid,
                }),
                ..DeleteParams::default()
            };
            let deleted = connected
                .secrets
                .delete(&self.config.name, &parameters)
                .await;
            match deleted {
                Ok(_) => {}
                // Somebody else was first.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(self.error(&connected.namespace, "delete", error)),
            }
        }
        // Now, and not before: what failed is tried again.
        self.last = None;
        Ok(())
    }

    async fn attempt(
        &mut self,
        connected: &Connected,
        artifacts: &Artifacts,
    ) -> Result<Attempt, DestinationError> {
        let wanted = self.wanted(artifacts);
        let namespace = &connected.namespace;
        let Some(found) = self.get(connected).await? else {
            let parameters = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            return match connected.secrets.create(&parameters, &wanted).await {
                Ok(created) => {
                    // If that fails, the next write does it.
                    _ = self.own_by_apply(connected, &created).await?;
                    self.wrote(artifacts, &created);
                    Ok(Attempt::Done(Written::InForce))
                }
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Again),
                Err(error) => Err(self.error(namespace, "create", error)),
            };
        };
        let kind = self.config.shape.kind();
        if let Some(other) = found.type_.as_deref().filter(|other| *other != kind) {
            let why = format!(
                "it is of type {other}, and the output writes {kind}; the type of a Secret cannot change: delete it, or name another"
            );
            return Err(self.failed(namespace, &why));
        }
        if let Some(ours) = &artifacts.issued {
            let name = &self.config.name;
            match Theirs::of(&found) {
                Some(theirs) if theirs.stays(ours) && has_all(&found, &wanted) => {
                    return Ok(Attempt::Done(Written::NewerIsThere(format!(
                        "Secret {namespace}/{name} holds a set that was issued later ({}), by another replica: it stays",
                        at_text(theirs.at)
                    ))));
                }
                Some(theirs) if theirs.id != ours.id => tracing::warn!(
                    secret = format!("{namespace}/{name}"),
                    before = theirs.id,
                    now = ours.id,
                    "the Secret was another identity's: if that comes back, two agents write to it"
                ),
                _ => {}
            }
        }
        let Some(version) = self.own_by_apply(connected, &found).await? else {
            return Ok(Attempt::Again);
        };
        if holds(&found, &wanted) {
            self.wrote(artifacts, &found);
            return Ok(Attempt::Done(Written::InForce));
        }
        let mut applied = wanted;
        applied.metadata.resource_version = Some(version);
        let applied = Patch::Apply(applied);
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        parameters.force = self.config.force;
        let patched = connected
            .secrets
            .patch(&self.config.name, &parameters, &applied);
        match patched.await {
            Ok(secret) => {
                self.wrote(artifacts, &secret);
                Ok(Attempt::Done(Written::InForce))
            }
            Err(kube::Error::Api(status)) if is_field_conflict(&status) => {
                let why = format!(
                    "{}; let the other one give these keys up, choose other keys, or set `force: true` to take them over",
                    one_line(&status.message)
                );
                Err(self.failed(namespace, &why))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Attempt::Again),
            Err(error) => Err(self.error(namespace, "apply", error)),
        }
    }

    /// The Secret as it should be, as far as it is ours.
    fn wanted(&self, artifacts: &Artifacts) -> Secret {
        let data = artifacts.files.iter().map(|file| {
            let key = self.config.shape.key(&file.name);
            (key, ByteString(file.contents.to_vec()))
        });
        let issued = artifacts.issued.as_ref().map(|issued| {
            BTreeMap::from([
                (ISSUED_AT.to_owned(), at_text(issued.at)),
                (EXPIRES_AT.to_owned(), at_text(issued.until)),
                (SPIFFE_ID.to_owned(), issued.id.clone()),
            ])
        });
        Secret {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                labels: Some(self.config.labels.clone()).filter(|labels| !labels.is_empty()),
                annotations: issued,
                ..ObjectMeta::default()
            },
            type_: Some(self.config.shape.kind().to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    /// Turns what an update of ours owns into what an apply of ours owns. The version of
    /// the Secret then; `None`: it was changed meanwhile.
    async fn own_by_apply(
        &mut self,
        connected: &Connected,
        secret: &Secret,
    ) -> Result<Option<String>, DestinationError> {
        let version = secret.metadata.resource_version.clone();
        let mut fields = secret.metadata.managed_fields.clone().unwrap_or_default();
        let is_ours = |entry: &ManagedFieldsEntry, operation: &str| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some(operation)
                && entry.subresource.is_none()
        };
        let Some(of_update) = fields.iter().position(|entry| is_ours(entry, "Update")) else {
            return Ok(version);
        };
        if fields.iter().any(|entry| is_ours(entry, "Apply")) {
            fields.remove(of_update);
        } else {
            fields[of_update].operation = Some("Apply".to_owned());
        }
        let patch = serde_json::json!({
            "metadata": { "resourceVersion": version, "managedFields": fields },
        });
        let patch = Patch::Merge(patch);
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = connected
            .secrets
            .patch(&self.config.name, &parameters, &patch);
        match patched.await {
            Ok(secret) => Ok(secret.metadata.resource_version),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(self.error(&connected.namespace, "apply", error)),
        }
    }

    async fn get(&mut self, connected: &Connected) -> Result<Option<Secret>, DestinationError> {
        let found = connected.secrets.get_opt(&self.config.name).await;
        found.map_err(|error| self.error(&connected.namespace, "read", error))
    }

    async fn connected(&mut self) -> Result<Connected, DestinationError> {
        if let Some(connected) = &self.api {
            return Ok(connected.clone());
        }
        // Not on a thread that others wait for: a program that a kubeconfig names is run, and
        // waited for.
        let config = self.config.clone();
        let connecting = self.connecting.get_or_insert_with(|| {
            let runtime = Handle::current();
            spawn_blocking(move || runtime.block_on(connect(&config)))
        });
        // One at a time: who is late is waited for at the next write.
        let Ok(ended) = timeout(CALL, connecting).await else {
            return Err(cannot_find(&format!(
                "no answer within {CALL:?} from what the kubeconfig names"
            )));
        };
        self.connecting = None;
        let connected = ended.map_err(|error| cannot_find(&error))??;
        self.api = Some(connected.clone());
        Ok(connected)
    }

    fn wrote(&mut self, artifacts: &Artifacts, secret: &Secret) {
        let files = artifacts.files.iter();
        let keys = files.map(|file| self.config.shape.key(&file.name));
        self.last = Some(Last::of(secret, keys.collect()));
    }

    fn error(&mut self, namespace: &str, action: &str, error: kube::Error) -> DestinationError {
        // The next write begins with a new look at the cluster's address and credentials.
        if !matches!(&error, kube::Error::Api(status) if status.code != 401) {
            self.api = None;
        }
        // In trouble, or not there at all.
        let is_away = match &error {
            kube::Error::Api(status) => status.code >= 500 || status.code == 429,
            _ => true,
        };
        let why = match error {
            kube::Error::Api(status) => {
                let what = one_line(&status.message);
                match status.code {
                    403 => format!(
                        "cannot {action} it: {what}; give the service account `get`, `create` and `patch` on Secrets (docs/guide/outputs.md)"
                    ),
                    code => format!("cannot {action} it: {what} ({code})"),
                }
            }
            error => format!("cannot {action} it: {}", one_line(&error.to_string())),
        };
        DestinationError {
            is_away,
            ..self.failed(namespace, &why)
        }
    }

    fn failed(&self, namespace: &str, why: &str) -> DestinationError {
        DestinationError::new(format!("Secret {namespace}/{}: {why}", self.config.name))
    }
}

/// Whether a Secret is as we would apply it. What others put there is not looked at; a key
/// of an earlier set of ours is something to take away.
fn holds(found: &Secret, wanted: &Secret) -> bool {
    let ours = found
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .find(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Apply")
        });
    let data = ours
        .and_then(|entry| entry.fields_v1.as_ref()?.0.get("f:data")?.as_object())
        .map(|keys| keys.keys().filter(|key| *key != ".").count());
    let contains = |found: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<_, _>>| {
        wanted
            .iter()
            .flatten()
            .all(|(key, value)| found.as_ref().and_then(|found| found.get(key)) == Some(value))
    };
    data == wanted.data.as_ref().map(BTreeMap::len)
        && wanted
            .data
            .iter()
            .flatten()
            .all(|(key, value)| found.data.as_ref().and_then(|found| found.get(key)) == Some(value))
        && contains(&found.metadata.labels, &wanted.metadata.labels)
        && contains(&found.metadata.annotations, &wanted.metadata.annotations)
}

fn is_field_conflict(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 409
        && causes
            .into_iter()
            .any(|cause| cause.reason == "FieldManagerConflict")
}

fn one_line(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(500).collect()
}
