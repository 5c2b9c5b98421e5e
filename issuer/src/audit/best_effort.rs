//! Issuance that goes on while the store cannot record it (`audit.required: false`).
//!
//! What it gives up, for SVIDs only (joins, renewals and administration never):
//! - the record is in the log and in the sinks, marked `not_durable`, and not in the
//!   trail: no link proves it, and a crash can lose it;
//! - a copy of a bot's identity that is used in that time is not found by it.
//!
//! What it does not give up: the decision is made on the newest policy, locks and keys
//! that were committed. That is all there is, as long as this issuer is the only one
//! that writes: so it is refused on a database that issuers share, where another one's
//! lock could be missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, watch};

use super::{
    Event,
    lines::{Line, NotDurable},
};
use crate::store::to_millis;

/// How often the log reminds of it.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// Takes what the store could not record.
#[derive(Debug)]
pub struct BestEffort {
    sinks: Vec<mpsc::Sender<Arc<NotDurable>>>,
    told: AtomicU64,
}

impl BestEffort {
    pub(super) fn new(sinks: Vec<mpsc::Sender<Arc<NotDurable>>>) -> Self {
        metrics::gauge!("issuer_audit_best_effort").set(1.0);
        Self {
            sinks,
            told: AtomicU64::new(0),
        }
    }

    /// Tells the log and the sinks of a decision that is in no trail. It does not wait: of
    /// a sink that has too much to do already, only the log has it.
    pub fn tell(&self, event: &Event, now: SystemTime) {
        let told = NotDurable {
            time_ms: to_millis(now),
            event: event.name().as_str().to_owned(),
            success: event.is_success(),
            fields: event.fields_json(),
        };
        self.told.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("issuer_audit_not_durable_total").increment(1);
        let record = Line::NotDurable(told.clone()).to_json();
        tracing::error!(record, "the store could not record this decision");
        let told = Arc::new(told);
        for sink in &self.sinks {
            // See above.
            let _ = sink.try_send(told.clone());
        }
    }

    /// For `/readyz`: it is never quiet about it.
    pub fn warning(&self) -> String {
        let told = self.told.load(Ordering::Relaxed);
        format!(
            "audit.required is false: SVIDs are given although the store cannot record them; {told} decisions were not recorded since the start"
        )
    }

    /// Reminds in the log until the issuer drains.
    pub async fn remind(self: Arc<Self>, mut draining: watch::Receiver<bool>) {
        loop {
            tracing::warn!("{}", self.warning());
            tokio::select! {
                () = tokio::time::sleep(REMIND_EVERY) => {}
                // An error means that the process is ending.
                _ = draining.wait_for(|draining| *draining) => return,
            }
        }
    }
}
