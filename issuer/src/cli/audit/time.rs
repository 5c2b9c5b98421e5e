//! Moments as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::audit::lines::parse_time;

/// A moment: RFC 3339, or a duration before now (`2h`, `2h ago`).
pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    moment_before(text, SystemTime::now())
}

fn moment_before(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    if let Some(milliseconds) = parse_time(text).and_then(|time| u64::try_from(time).ok()) {
        return Ok(UNIX_EPOCH + Duration::from_millis(milliseconds));
    }
    let duration = text.strip_suffix(" ago").unwrap_or(text);
    ::config::parse_duration(duration)
        .ok()
        .and_then(|duration| now.checked_sub(duration))
        .ok_or_else(|| {
            format!(
                "{text:?} is no moment: write 2026-11-21T20:53:01Z, or how long ago, as 2h or 30m"
            )
        })
}

#[cfg(test)]
mod tests;
