//! The kubelet's list of pods: bytes in, containers by id out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::PodReference;

/// What the kubelet of this node runs.
#[derive(Debug, Default)]
pub struct Pods {
    /// Containers by id.
    containers: HashMap<String, Vec<PodContainer>>,
    /// All pods by UID, those without a running container too.
    pods: HashMap<String, Arc<Pod>>,
}

/// One container and the pod that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodContainer {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The name of the container in the pod.
    pub name: String,
    /// The image as the pod names it.
    pub image: String,
    /// The digest of the image's manifest, if the runtime knows one.
    pub image_digest: Option<String>,
    /// What it is for.
    pub r#type: ContainerType,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID; for a pod from a file of the kubelet, the hash of that file.
    pub uid: String,
    /// The name of its service account; empty for a pod from a file.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether all of its containers have ended, not to start again.
    pub has_finished: bool,
}

impl Pod {
    /// What rules and templates know as `workload.kubernetes`, without the container.
    pub(super) fn attributes(&self) -> Map<String, Value> {
        let mut attributes = Map::new();
        for (name, value) in [
            ("attested", Value::Bool(true)),
            ("namespace", self.namespace.clone().into()),
            ("pod_name", self.name.clone().into()),
            ("pod_uid", self.uid.clone().into()),
            ("service_account", self.service_account.clone().into()),
            ("labels", json!(self.labels)),
        ] {
            attributes.insert(name.to_owned(), value);
        }
        attributes
    }
}

/// What a container of a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerType {
    /// One of `spec.containers`.
    Regular,
    /// One of `spec.initContainers`, which ends before the regular ones start.
    Init,
    /// One of `spec.initContainers` with `restartPolicy: Always`, which stays.
    Sidecar,
    /// One of `spec.ephemeralContainers`: somebody debugs the pod.
    Ephemeral,
}

impl ContainerType {
    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Ephemeral => "ephemeral",
        }
    }
}

impl Pods {
    /// Reads `GET /pods` of a kubelet: a `v1.PodList`.
    ///
    /// # Errors
    ///
    /// If it is none. Pods of which only a part is known yet are no error.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let list: List = serde_json::from_slice(bytes)?;
        let mut pods = Self::default();
        for Item {
            metadata,
            spec,
            status,
        } in list.items.unwrap_or_default()
        {
            let pod = Arc::new(Pod {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                service_account: spec
                    .service_account_name
                    .or(spec.service_account)
                    .unwrap_or_default(),
                labels: metadata.labels.unwrap_or_default(),
                has_finished: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            });
            pods.pods.insert(pod.uid.clone(), Arc::clone(&pod));
            for (specs, statuses, r#type) in [
                (
                    spec.containers,
                    status.container_statuses,
                    ContainerType::Regular,
                ),
                (
                    spec.init_containers,
                    status.init_container_statuses,
                    ContainerType::Init,
                ),
                (
                    spec.ephemeral_containers,
                    status.ephemeral_container_statuses,
                    ContainerType::Ephemeral,
                ),
            ] {
                let specs = specs.unwrap_or_default();
                for status in statuses.unwrap_or_default() {
                    let Some(spec) = specs.iter().find(|spec| spec.name == status.name) else {
                        continue;
                    };
                    // `containerd://ID`, and empty until it runs.
                    let Some((_, id)) = status.container_id.split_once("://") else {
                        continue;
                    };
                    let container = PodContainer {
                        pod: Arc::clone(&pod),
                        name: status.name,
                        image: spec.image.clone(),
                        image_digest: digest(&status.image_id),
                        r#type: match (r#type, spec.restart_policy.as_deref()) {
                            (ContainerType::Init, Some("Always")) => ContainerType::Sidecar,
                            (r#type, _) => r#type,
                        },
                    };
                    let place = pods.containers.entry(id.to_owned()).or_default();
                    place.push(container);
                }
            }
        }
        Ok(pods)
    }

    /// The container of this id. If the pod that holds it is known from elsewhere, it
    /// must be that pod. None if two claim the id (CRI-O may list one in two pods).
    pub fn container(&self, id: &str, pod_uid: Option<&str>) -> Option<&PodContainer> {
        let mut found = self
            .containers
            .get(id)?
            .iter()
            .filter(|container| pod_uid.is_none_or(|uid| container.pod.uid == uid));
        match (found.next(), found.next()) {
            (found, None) => found,
            _ => None,
        }
    }

    /// Whether there is a pod of this UID, whatever runs in it.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The pod that is meant, if it has not finished; both parts of a reference must hold
    /// (SPIFFE Broker API, BA-07). None if a name is that of two: one of a StatefulSet
    /// that ends and the next; the UID tells them apart.
    pub fn pod(&self, reference: &PodReference) -> Option<&Arc<Pod>> {
        let is_meant = |pod: &&Arc<Pod>| {
            let key = reference.key.as_ref();
            key.is_none_or(|(namespace, name)| pod.namespace == *namespace && pod.name == *name)
                && !pod.has_finished
        };
        match &reference.uid {
            Some(uid) => self.pods.get(uid).filter(is_meant),
            None => {
                let mut found = self.pods.values().filter(is_meant);
                found.next().filter(|_| found.next().is_none())
            }
        }
    }
}

/// `docker-pullable://REPOSITORY@DIGEST` or `REPOSITORY@DIGEST`. A bare digest is that of
/// the image's configuration: an image that came from no registry.
fn digest(image_id: &str) -> Option<String> {
    image_id
        .rsplit_once('@')
        .map(|(_, digest)| digest)
        .filter(|digest| digest.contains(':'))
        .map(str::to_owned)
}

#[derive(Deserialize)]
struct List {
    // `null` if there are none, as Go writes it. Absent in what is no list: an error.
    #[serde(deserialize_with = "Option::deserialize")]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Statuses,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    uid: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    service_account: Option<String>,
    containers: Option<Vec<ContainerSpec>>,
    init_containers: Option<Vec<ContainerSpec>>,
    ephemeral_containers: Option<Vec<ContainerSpec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerSpec {
    name: String,
    #[serde(default)]
    image: String,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statuses {
    #[serde(default)]
    phase: String,
    container_statuses: Option<Vec<Status>>,
    init_container_statuses: Option<Vec<Status>>,
    ephemeral_container_statuses: Option<Vec<Status>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    name: String,
    #[serde(default, rename = "containerID")]
    container_id: String,
    #[serde(default, rename = "imageID")]
    image_id: String,
}
