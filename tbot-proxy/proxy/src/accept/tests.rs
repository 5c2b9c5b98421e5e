use std::{io, time::Duration};

use rustix::io::Errno;

use super::{LONGEST_PAUSE, Pause, concerns_one_connection};

#[test]
fn pauses_double_to_a_second() {
    let mut pause = Pause::default();
    assert!(pause.is_first());
    let pauses: Vec<u128> = std::iter::repeat_with(|| pause.next().as_millis())
        .take(10)
        .collect();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert!(!pause.is_first());
    assert_eq!(LONGEST_PAUSE, Duration::from_secs(1));
}

#[test]
fn only_what_concerns_one_connection_is_passed_over() {
    let cases = [
        (Errno::CONNABORTED, true),
        (Errno::INTR, true),
        (Errno::PROTO, true),
        (Errno::MFILE, false),
        (Errno::NFILE, false),
        (Errno::NOBUFS, false),
        (Errno::NOMEM, false),
        // Never to be retried at once: a bug must not become a hot loop.
        (Errno::BADF, false),
        (Errno::INVAL, false),
    ];
    for (errno, expected) in cases {
        assert_eq!(
            concerns_one_connection(&io::Error::from(errno)),
            expected,
            "{errno}"
        );
    }
}
