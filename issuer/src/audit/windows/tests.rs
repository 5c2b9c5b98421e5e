use std::time::{Duration, Instant};

use super::{SOURCES_MAX, WINDOW, Windows};

#[test]
fn a_source_is_recorded_once_a_window_and_the_next_record_tells_of_the_rest() {
    let windows = Windows::default();
    let start = Instant::now();
    let second = Duration::from_secs(1);
    assert_eq!(windows.count("a", start), Some(1));
    for number in 1..=5 {
        assert_eq!(windows.count("a", start + number * second), None);
    }
    assert_eq!(windows.count("b", start), Some(1));
    assert_eq!(windows.count("a", start + WINDOW), Some(6));
    assert_eq!(windows.count("a", start + WINDOW + second), None);
}

#[test]
fn sources_without_end_take_bounded_memory() {
    let windows = Windows::default();
    let start = Instant::now();
    for number in 0..SOURCES_MAX {
        assert_eq!(windows.count(&number.to_string(), start), Some(1));
    }
    assert_eq!(windows.count("one more", start), None);
    assert_eq!(windows.count("one more", start + WINDOW), Some(1));
}
