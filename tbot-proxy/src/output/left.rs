//! What an earlier process left: it is one of ours, and expires like any other.
//!
//! While this process has written nothing, what is there is looked at: a set of which a
//! document says that it has expired is removed, also while the issuer is away. A set
//! that does not say it, such as one of trust bundles, stays.

use std::time::{Duration, SystemTime};

use ::output::DestinationError;

use super::{LOOK, Output, documents::dated};
use crate::state::rfc3339;

impl Output {
    /// Removes what an earlier process left, if it has expired. When to look again.
    ///
    /// # Errors
    ///
    /// It has expired, and cannot be removed.
    pub(super) async fn remove_what_is_left(&mut self) -> Result<Duration, DestinationError> {
        let Some(expires) = self.expiry_of_what_is_left().await else {
            return Ok(LOOK);
        };
        if let Ok(left) = expires.duration_since(SystemTime::now())
            && !left.is_zero()
        {
            return Ok(left.min(LOOK));
        }
        self.destination.remove().await?;
        tracing::warn!(
            service = self.name,
            expired_at = rfc3339(expires),
            "what an earlier process left has expired and is removed"
        );
        Ok(LOOK)
    }

    async fn expiry_of_what_is_left(&mut self) -> Option<SystemTime> {
        let (document, names) = (self.document.clone(), self.names.clone());
        // The file of a password is read.
        let documents = tokio::task::spawn_blocking(move || dated(&document, &names)).await;
        let documents = documents.unwrap_or_default();
        if documents.is_empty() {
            return None;
        }
        let expiry = self.destination.expiry(documents).await;
        expiry.unwrap_or_else(|error| {
            tracing::warn!(service = self.name, %error, "what an earlier process left is not looked at");
            None
        })
    }
}
