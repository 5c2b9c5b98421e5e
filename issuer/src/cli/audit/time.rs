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
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::moment_before;

    #[test]
    fn moments() {
        let now = UNIX_EPOCH + Duration::from_secs(1_763_769_600);
        let ago = |seconds| Ok(now - Duration::from_secs(seconds));
        assert_eq!(moment_before("2h", now), ago(7200));
        assert_eq!(moment_before("1d12h ago", now), ago(36 * 3600));
        assert_eq!(moment_before("2025-11-22T00:00:00Z", now), ago(0));
        assert_eq!(moment_before("2025-11-22T01:00:00+02:00", now), ago(3600));
        for wrong in ["", "yesterday", "2h later", "2025-11-22", "99999999999999d"] {
            assert!(moment_before(wrong, now).is_err(), "{wrong}");
        }
    }
}
