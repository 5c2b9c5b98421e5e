//! What is known of workloads: all of a local process, of a pod what the kubelet tells,
//! nothing of who comes over TCP.

use std::sync::Arc;

use attest::{Attestors, PodError, Process};
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::cache::{Unknown, Witness};

/// A process of this machine.
pub(super) struct Local {
    pub(super) process: Arc<Process>,
    pub(super) attestors: Arc<Attestors>,
}

impl Witness for Local {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>> {
        Box::pin(async {
            let attestation = self.attestors.attest(&self.process).await;
            if attestation.attributes.get("unix").is_none() {
                let why = attestation.failures.into_iter().next();
                let why = why.map_or("it has ended".to_owned(), |failure| failure.reason);
                return Err(Unknown::Gone(why));
            }
            Ok(Some(Arc::new(attestation.attributes)))
        })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.process.ended())
    }
}

/// A pod of this node that a broker speaks for.
pub(super) struct BrokeredPod {
    pub(super) uid: String,
    pub(super) attestors: Arc<Attestors>,
}

impl Witness for BrokeredPod {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>> {
        Box::pin(async {
            let attributes = self.attestors.attest_pod(&self.uid).await;
            let attributes = attributes.map_err(|error| match error {
                PodError::Unavailable(why) => Unknown::Unavailable(why),
                error => Unknown::Gone(error.to_string()),
            })?;
            Ok(Some(Arc::new(attributes)))
        })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        let (attestors, uid) = (self.attestors.clone(), self.uid.clone());
        Box::pin(async move { attestors.pod_ended(&uid).await })
    }
}

/// Over TCP nobody proves anything.
pub(super) struct Unattested;

impl Witness for Unattested {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>> {
        Box::pin(async { Ok(None) })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}
