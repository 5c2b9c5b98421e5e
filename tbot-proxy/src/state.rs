//! What is known of an identity and of a service, for those who wait for it and
//! for `/readyz`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

use crate::metrics::{SERVICE_READY, SVID_EXPIRY, timestamp};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    /// RFC 3339.
    pub(crate) updated_at: String,
    /// When the SVID that serves it expires; it has none if it is `None`.
    #[serde(skip)]
    pub(crate) svid_expiry: Option<SystemTime>,
}

/// Whether a service does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(service);
    }

    /// Notes when the SVID of a service expires.
    pub(crate) fn expires(&self, service: &str, at: Option<SystemTime>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(service) {
            entry.svid_expiry = at;
        }
    }

    /// The gauges of every service in the text format of Prometheus. They are made from
    /// what there is: those of a service that is gone are gone, which a recorder, whose
    /// metrics cannot be taken back, has no way to say.
    pub(crate) fn gauges(&self) -> String {
        let entries = self.entries();
        let mut text = String::new();
        let mut family = |name: &str, help: &str, value: fn(&Entry) -> f64| {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (service, entry) in &entries {
                // Names of services need no escaping.
                _ = writeln!(text, "{name}{{service=\"{service}\"}} {}", value(entry));
            }
            text.push('\n');
        };
        family(SERVICE_READY, "Whether a service is ready", |entry| {
            f64::from(u8::from(entry.status == Status::Ready))
        });
        family(
            SVID_EXPIRY,
            "When a service's SVID expires, since 1970; 0 if it has none",
            |entry| entry.svid_expiry.map_or(0.0, timestamp),
        );
        text
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
        let old = entries.get(service);
        let was_ready = old.is_some_and(|entry| entry.status == Status::Ready);
        let svid_expiry = old.and_then(|entry| entry.svid_expiry);
        match (was_ready, status, &reason) {
            (false, Status::Ready, _) => tracing::info!(service, "ready"),
            (true, Status::NotReady, Some(reason)) => tracing::warn!(service, reason, "not ready"),
            _ => {}
        }
        let entry = Entry {
            status,
            reason,
            updated_at: rfc3339(SystemTime::now()),
            svid_expiry,
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
