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
