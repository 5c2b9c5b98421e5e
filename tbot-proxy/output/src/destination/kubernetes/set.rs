//! The set that a Secret holds: whose it is, and whether it stays.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{EXPIRES_AT, FIELD_MANAGER, ISSUED_AT, SKEW, SPIFFE_ID};
use crate::artifact::{self, Issued};

/// What a Secret says of the set that it holds.
pub(super) struct Theirs {
    pub(super) at: SystemTime,
    until: SystemTime,
    pub(super) id: String,
    /// When one of ours wrote it last, by the API server's clock.
    written: SystemTime,
}

impl Theirs {
    pub(super) fn of(secret: &Secret) -> Option<Self> {
        let annotations = secret.metadata.annotations.as_ref()?;
        let time = |name: &str| -> Option<SystemTime> {
            let text = annotations.get(name)?;
            Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.into())
        };
        let entries = secret.metadata.managed_fields.iter().flatten();
        let ours = entries.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
        let written = ours.filter_map(|entry| Some(entry.time.as_ref()?.0.into()));
        Some(Self {
            at: time(ISSUED_AT)?,
            until: time(EXPIRES_AT)?,
            id: annotations.get(SPIFFE_ID)?.clone(),
            written: written.max()?,
        })
    }

    /// Whether it is the newer one, and of any use. Both times of writing are the server's:
    /// the clock of this machine decides nothing of it.
    pub(super) fn stays(&self, ours: &Issued) -> bool {
        self.id == ours.id
            && self.at > whole_seconds(ours.at)
            && self.at <= self.written + SKEW
            && self.until > SystemTime::now()
    }
}

/// Whether no key was taken out. What a set has from time to time is not looked for.
pub(super) fn has_all(found: &Secret, wanted: &Secret) -> bool {
    let is_always = |key: &&String| !key.starts_with("federated.") && *key != artifact::CRL;
    let mut keys = wanted.data.iter().flatten().map(|(key, _)| key);
    let has = |key: &String| {
        found
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key(key))
    };
    keys.all(|key| !is_always(&key) || has(key))
}

/// RFC 3339, in whole seconds.
pub(super) fn at_text(at: SystemTime) -> String {
    OffsetDateTime::from(whole_seconds(at))
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// As certificates have it.
fn whole_seconds(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
