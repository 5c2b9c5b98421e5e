//! A workload: who has connected, and what is known of it.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::kept::Attested;

/// Tells what is so of a workload, now.
pub(crate) trait Witness: Send + Sync + 'static {
    /// Reads its attributes: the tree below `workload`, `None` if nothing can be known of
    /// callers like this.
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>>;

    /// Resolves when it has ended; never if that cannot be known.
    fn ended(&self) -> BoxFuture<'static, ()>;
}

/// It cannot be told who the workload is: it gets nothing. A rule that denies by an
/// attribute would not deny one that has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    /// It is no more, or is not what it was.
    #[error("the workload cannot be attested: {0}")]
    Gone(String),
    /// Who knows cannot be asked now.
    #[error("the workload cannot be attested now: {0}")]
    Unavailable(String),
}

/// One process that has connected, over however many connections.
pub(crate) struct Workload {
    witness: Box<dyn Witness>,
    last: RwLock<Option<Attested>>,
    /// Held while it is read anew.
    reading: Mutex<()>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload").finish_non_exhaustive()
    }
}

impl Workload {
    pub(crate) fn new(witness: impl Witness) -> Arc<Self> {
        Arc::new(Self {
            witness: Box::new(witness),
            last: RwLock::default(),
            reading: Mutex::default(),
        })
    }

    /// What is so of it, read at `since` or later. One reading serves all who ask while it
    /// goes on; whom an earlier one serves does not wait for it.
    pub(crate) async fn attested_since(&self, since: Instant) -> Result<Attested, Unknown> {
        if let Some(attested) = self.last().filter(|last| last.at >= since) {
            return Ok(attested);
        }
        let _reading = self.reading.lock().await;
        let last = self.last();
        if let Some(attested) = last.as_ref().filter(|last| last.at >= since) {
            return Ok(attested.clone());
        }
        let at = Instant::now();
        let workload = self.witness.attest().await?;
        let before = last.and_then(|last| last.workload);
        let attested = Attested {
            // What has not changed is kept once.
            workload: match (workload, before) {
                (Some(new), Some(old)) if new == old => Some(old),
                (new, _) => new,
            },
            at,
        };
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        *last = Some(attested.clone());
        Ok(attested)
    }

    fn last(&self) -> Option<Attested> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// See [`Witness::ended`].
    pub(crate) fn ended(&self) -> BoxFuture<'static, ()> {
        self.witness.ended()
    }
}

#[cfg(test)]
mod tests;
