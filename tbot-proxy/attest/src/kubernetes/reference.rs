//! Pods that somebody else names, where no process of theirs has called: the kubelet of
//! this node says which pod that is, and nothing of the name is believed without it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Kubernetes, pods::Pod};
use crate::{attestation::Attestors, attestor::Attestor};

/// How soon it is noticed that a pod is no more.
const LOOKED_AFTER: Duration = Duration::from_secs(5);

/// A pod of this node by namespace and name, by UID, or by both: then both must mean the
/// same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReference {
    /// Namespace and name.
    pub key: Option<(String, String)>,
    /// UID.
    pub uid: Option<String>,
}

impl PodReference {
    /// By UID alone.
    pub fn of_uid(uid: impl Into<String>) -> Self {
        Self {
            key: None,
            uid: Some(uid.into()),
        }
    }
}

impl fmt::Display for PodReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pod")?;
        if let Some((namespace, name)) = &self.key {
            write!(f, " {namespace}/{name}")?;
        }
        match &self.uid {
            Some(uid) => write!(f, " with the UID {uid}"),
            None => Ok(()),
        }
    }
}

/// Why it is not known which pod is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// Pods are not attested here.
    #[error("pods are not attested here: there is no `kubernetes` among the attestors")]
    NotAttested,
    /// The kubelet of this node runs no such pod.
    #[error("the kubelet of this node runs no {0}")]
    NotFound(PodReference),
    /// The kubelet cannot be asked now.
    #[error("{0}")]
    Unavailable(String),
}

impl Attestors {
    /// The pod that is meant, as the kubelet lists it now.
    ///
    /// # Errors
    ///
    /// See [`PodError`]; a pod that has finished is none.
    pub async fn pod(&self, reference: &PodReference) -> Result<Arc<Pod>, PodError> {
        let deadline = Instant::now() + self.time_limit();
        let kubelet = &self.kubernetes()?.kubelet;
        kubelet.pod(reference, Duration::ZERO, deadline).await
    }

    /// What is known of the pod with this UID: the tree below `workload`. It has no
    /// container, and nothing of a process.
    ///
    /// # Errors
    ///
    /// See [`PodError`].
    pub async fn attest_pod(&self, uid: &str) -> Result<Value, PodError> {
        let deadline = Instant::now() + self.time_limit();
        let Kubernetes { kubelet } = self.kubernetes()?;
        let pod = kubelet
            .pod(&PodReference::of_uid(uid), kubelet.kept_for(), deadline)
            .await?;
        Ok(json!({ "kubernetes": Value::Object(pod.attributes()) }))
    }

    /// Resolves when the pod with this UID is no more. A kubelet that cannot be asked
    /// does not end it.
    pub async fn pod_ended(&self, uid: &str) {
        let Ok(Kubernetes { kubelet }) = self.kubernetes() else {
            return;
        };
        let reference = PodReference::of_uid(uid);
        loop {
            tokio::time::sleep(LOOKED_AFTER).await;
            let deadline = Instant::now() + self.time_limit();
            // One list for all who look.
            let pod = kubelet.pod(&reference, LOOKED_AFTER, deadline).await;
            if matches!(pod, Err(PodError::NotFound(_))) {
                return;
            }
        }
    }

    fn kubernetes(&self) -> Result<&Kubernetes, PodError> {
        self.attestors()
            .iter()
            .find_map(|attestor| match attestor {
                Attestor::Kubernetes(kubernetes) => Some(kubernetes),
                _ => None,
            })
            .ok_or(PodError::NotAttested)
    }
}
