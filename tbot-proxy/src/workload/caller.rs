//! What is known of callers: all of a local process, nothing of one over TCP.

use std::sync::Arc;

use attest::{Attestors, Process};
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
                return Err(Unknown(why));
            }
            Ok(Some(Arc::new(attestation.attributes)))
        })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.process.ended())
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
