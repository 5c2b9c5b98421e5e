use super::*;

#[test]
fn durations_are_read_and_written() {
    for (text, milliseconds) in [
        ("0s", 0),
        ("250ms", 250),
        ("90s", 90_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        ("14d", 14 * 86_400_000),
        ("1d2h3m4s5ms", 93_784_005),
    ] {
        assert_eq!(
            parse_duration(text),
            Ok(Duration::from_millis(milliseconds)),
            "{text}"
        );
    }
    for (milliseconds, text) in [(0, "0s"), (90_000, "1m30s"), (86_400_000, "1d"), (5, "5ms")] {
        assert_eq!(format_duration(Duration::from_millis(milliseconds)), text);
    }
}

#[test]
fn what_is_not_a_duration_is_refused() {
    for text in [
        "", "5", "s", "5 s", "5m5", "-5s", "1.5h", "5m1h", "5s5s", "5S", "5w", "٣s", "1h 30m",
    ] {
        let message = parse_duration(text).unwrap_err();
        assert!(message.contains("is not a duration"), "{text}: {message}");
    }
    for text in ["99999999999999999999s", "18446744073709551615d"] {
        let message = parse_duration(text).unwrap_err();
        assert!(message.contains("too long"), "{text}: {message}");
    }
}
