//! What is known of an identity and of a service, for those who wait for it and
//! for `/readyz`.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

/// Whether an identity is held, and what is wrong with it if anything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityState {
    /// There is one and it has not expired.
    pub(crate) held: bool,
    /// Why there is none, or why the one that there is does not get renewed.
    pub(crate) reason: Option<String>,
}

impl IdentityState {
    pub(crate) fn held() -> Self {
        Self {
            held: true,
            reason: None,
        }
    }

    pub(crate) fn waiting(reason: impl Into<String>) -> Self {
        Self {
            held: false,
            reason: Some(reason.into()),
        }
    }
}

/// Makes a state known unless it is known already.
pub(crate) fn publish(state: &watch::Sender<IdentityState>, new: IdentityState) {
    state.send_if_modified(|old| {
        let changed = *old != new;
        *old = new;
        changed
    });
}

/// What `/readyz` says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    entries: Arc<RwLock<BTreeMap<String, Entry>>>,
}

/// One service's part of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// RFC 3339.
    pub(crate) updated_at: String,
}

/// Whether a service does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It does. A reason beside it is a warning.
    Ready,
    /// It does not; the reason says why.
    NotReady,
}

impl Health {
    pub(crate) fn ready(&self, service: &str, warning: Option<String>) {
        self.set(service, Status::Ready, warning);
    }

    pub(crate) fn not_ready(&self, service: &str, reason: impl Into<String>) {
        self.set(service, Status::NotReady, Some(reason.into()));
    }

    /// Forgets a service that is no more.
    pub(crate) fn remove(&self, service: &str) {
        // A metric cannot be taken back. Not a number: no comparison of an alert is true of it.
        metrics::gauge!(crate::metrics::SERVICE_READY, "service" => service.to_owned())
            .set(f64::NAN);
        metrics::gauge!(crate::metrics::SVID_EXPIRY, "service" => service.to_owned()).set(f64::NAN);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(service);
    }

    /// Every service, by name.
    pub(crate) fn entries(&self) -> BTreeMap<String, Entry> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.clone()
    }

    fn set(&self, service: &str, status: Status, reason: Option<String>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(service)
            && entry.status == status
            && entry.reason == reason
        {
            return;
        }
        let was_ready = entries
            .get(service)
            .is_some_and(|entry| entry.status == Status::Ready);
        match (was_ready, status, &reason) {
            (false, Status::Ready, _) => tracing::info!(service, "ready"),
            (true, Status::NotReady, Some(reason)) => tracing::warn!(service, reason, "not ready"),
            _ => {}
        }
        let ready = if status == Status::Ready { 1.0 } else { 0.0 };
        metrics::gauge!(crate::metrics::SERVICE_READY, "service" => service.to_owned()).set(ready);
        let entry = Entry {
            status,
            reason,
            updated_at: rfc3339(SystemTime::now()),
        };
        entries.insert(service.to_owned(), entry);
    }
}

/// A time as RFC 3339 in UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}
