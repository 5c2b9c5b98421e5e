use std::time::{Duration, SystemTime};

use super::{bounded_ttl, remaining};
use crate::resources::{SvidKind, TtlBounds, TtlLimits};

fn bounds(maximum: Option<u64>) -> TtlBounds {
    let limits = TtlLimits {
        default: None,
        maximum: maximum.map(Duration::from_secs),
    };
    limits.bounds(SvidKind::X509)
}

#[test]
fn a_life_is_the_wanted_one_or_an_hour_cut_at_the_bound() {
    const DAY: u64 = 24 * 3600;
    for (wanted, maximum, granted) in [
        (None, None, 3600),
        (None, Some(600), 600),
        (Some(60), Some(600), 60),
        (Some(601), Some(600), 600),
        (Some(2 * DAY as i64), None, DAY),
        (Some(i64::MAX), Some(14 * DAY), 14 * DAY),
        (Some(i64::MAX), Some(100 * DAY), 14 * DAY),
    ] {
        let wanted = wanted.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let ttl = bounded_ttl(wanted.as_ref(), bounds(maximum)).unwrap();
        assert_eq!(ttl.as_secs(), granted, "{wanted:?} of {maximum:?}");
    }
    for (seconds, nanos) in [(0, 0), (-5, 0), (5, 1), (5, -1)] {
        let wanted = prost_types::Duration { seconds, nanos };
        assert!(
            bounded_ttl(Some(&wanted), bounds(None)).is_err(),
            "{seconds} {nanos}"
        );
    }
}

#[test]
fn what_remains_is_rounded_to_what_was_granted() {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    for (now_ms, left) in [
        (940_000, 60),
        (939_001, 61),
        (940_999, 60),
        (1_000_000, 0),
        (2_000_000, 0),
    ] {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms);
        assert_eq!(remaining(end, now).as_secs(), left, "{now_ms}");
    }
}
