//! Workloads that a broker speaks for: found and attested by this agent alone, as if they
//! had called themselves (SPIFFE Broker API, BA-04).

use std::sync::Arc;

use attest::{PodError, PodReference, Process, ProcessError};
use workload_api::broker::{Broker, KubernetesObject, Reference, Unresolved};

use super::{Caller, WorkloadIdentities, caller::BrokeredPod};
use crate::cache::Workload;

impl Broker for WorkloadIdentities {
    async fn resolve(&self, reference: &Reference) -> Result<Arc<Caller>, Unresolved> {
        let workload = match reference {
            Reference::Pid(pid) => {
                let process = Process::of_pid_as_it_is(pid.get()).map_err(|error| match error {
                    ProcessError::NoSuchProcess { .. } | ProcessError::Ended { .. } => {
                        Unresolved::NotFound(error.to_string())
                    }
                    error => Unresolved::Unavailable(error.to_string()),
                })?;
                self.workload(Arc::new(process))
            }
            Reference::Kubernetes(object) => {
                let pod = self.attestors.pod(&pod(object)?).await;
                let pod = pod.map_err(|error| match error {
                    PodError::NotAttested => Unresolved::Invalid(error.to_string()),
                    PodError::NotFound(_) => Unresolved::NotFound(error.to_string()),
                    PodError::Unavailable(_) => Unresolved::Unavailable(error.to_string()),
                })?;
                // By its UID from here on: another pod of its name is another workload
                // (BA-12).
                Workload::new(BrokeredPod {
                    uid: pod.uid.clone(),
                    attestors: self.attestors.clone(),
                })
            }
        };
        Ok(Arc::new(Caller(workload)))
    }
}

/// Of all objects, pods are what a kubelet tells of.
fn pod(object: &KubernetesObject) -> Result<PodReference, Unresolved> {
    if (object.group.as_str(), object.plural.as_str()) != ("core", "pods") {
        return Err(Unresolved::Invalid(format!(
            "objects of type {:?} of group {:?} are not resolved here: pods of group core are",
            object.plural, object.group
        )));
    }
    // BA-07.
    if object
        .key
        .as_ref()
        .is_some_and(|(namespace, _)| namespace.is_empty())
    {
        return Err(Unresolved::Invalid(
            "pods are in namespaces: the key has one".to_owned(),
        ));
    }
    Ok(PodReference {
        key: object.key.clone(),
        uid: object.uid.clone(),
    })
}
