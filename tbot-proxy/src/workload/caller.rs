//! What is known of callers: all of a local process, nothing of one over TCP.

use std::sync::Arc;

use attest::{Attestors, Process};
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::cache::{Gone, Witness};

/// A process of this machine.
pub(super) struct Local {
    pub(super) process: Arc<Process>,
    pub(super) attestors: Arc<Attestors>,
}

impl Witness for Local {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Gone>> {
        Box::pin(async {
            let attestation = self.attestors.attest(&self.process).await;
            if !self.process.is_alive() {
                return Err(Gone);
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
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Gone>> {
        Box::pin(async { Ok(None) })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}
