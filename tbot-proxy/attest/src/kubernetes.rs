//! The pod of a process: which one, by its cgroup; what it is, by the kubelet.
//!
//! The kubelet is the only one that is asked, not the API server: it knows what runs
//! on its node and answers while the API server is away. A pod's cgroup is believed
//! only where nobody but the kubelet and root can have made it: below `kubepods`, with
//! nothing above but slices of systemd and the kubelet's own cgroup.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{attestor::Found, container::Place, process::Process};

mod kubelet;
pub mod pods;
mod reference;
#[cfg(test)]
mod tests;

pub use self::reference::{PodError, PodReference};

use self::kubelet::Kubelet;

/// How pods are attested.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KubernetesConfig {
    /// The kubelet of this node: `https://NODE:10250`, or `http://127.0.0.1:10255` where
    /// its read-only port is open.
    pub url: String,
    /// The file of the token that it is shown, read for each list; never over `http`.
    /// Default: that of the agent's service account.
    pub token: Option<PathBuf>,
    /// Certificate and key (PEM files) that it is shown, read for each list.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How its certificate is verified.
    pub verification: KubeletVerification,
    /// How long a list is used for containers that are in it: labels of a running pod
    /// are known within this time. Default: 30 s.
    pub kept_for: Duration,
    /// How long a list is used for containers that are in it while the kubelet gives
    /// no other. Default: 10 min.
    pub kept_when_away: Duration,
    /// The shortest time between two lists. Default: 500 ms.
    pub min_interval: Duration,
    /// How long is waited for a container that is not in the list yet. Default: 8 s; the
    /// time limit of attestors holds too.
    pub patience: Duration,
}

/// How the kubelet is told from somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletVerification {
    /// By a certificate of a CA in this PEM file, for the host of the address.
    Ca(PathBuf),
    /// Not at all: for kubelets with self-signed certificates.
    None,
}

impl KubernetesConfig {
    /// The kubelet at this address, and the files of a pod's service account.
    pub fn new(url: impl Into<String>) -> Self {
        let folder = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            url: url.into(),
            token: Some(folder.join("token")),
            client_certificate: None,
            verification: KubeletVerification::Ca(folder.join("ca.crt")),
            kept_for: Duration::from_secs(30),
            kept_when_away: Duration::from_secs(600),
            min_interval: Duration::from_millis(500),
            patience: Duration::from_secs(8),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Kubernetes {
    kubelet: Arc<Kubelet>,
}

impl Kubernetes {
    pub(crate) fn new(config: KubernetesConfig, time_limit: Duration) -> Self {
        Self {
            kubelet: Arc::new(Kubelet::new(config, time_limit)),
        }
    }

    pub(crate) async fn attest(&self, process: &Process, deadline: Instant) -> Found {
        let container = match Place::of(process) {
            Ok(Place::In(container)) if container.in_kubernetes => container,
            Ok(_) => return Found::not_applicable("the process is in no pod"),
            Err(error) => return Found::failed(error),
        };
        if container.delegated {
            return Found::failed(format!(
                "the process is in a cgroup named as a pod's, below a systemd unit or a name that \
                 is not the kubelet's, where others may make cgroups: {:?}",
                container.cgroups
            ));
        }
        let uid = container.pod_uid.as_deref();
        // The reason must be told before the attestor is cut off.
        let deadline = deadline
            .checked_sub(Duration::from_millis(100))
            .unwrap_or(deadline);
        let found = match self.kubelet.container(&container.id, uid, deadline).await {
            Ok(found) => found,
            Err(reason) => return Found::failed(reason),
        };
        let mut attributes = found.pod.attributes();
        let container = json!({
            "name": found.name,
            "image": found.image,
            "image_digest": found.image_digest,
            "type": found.r#type.as_str(),
        });
        attributes.insert("container".to_owned(), container);
        Found {
            attributes: Some(attributes.into()),
            failures: match found.image_digest {
                Some(_) => Vec::new(),
                None => vec!["image_digest: no registry knows the image".to_owned()],
            },
            ..Found::default()
        }
    }
}
