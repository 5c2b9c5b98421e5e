use std::{io, time::Duration};

use rustix::io::Errno;
use tokio::time::Instant;

use super::{FIRST_PAUSE, LONGEST_PAUSE, Shortage, concerns_one_connection};

#[test]
fn pauses_double_to_a_second() {
    let mut shortage = Shortage::default();
    let mut now = Instant::now();
    let pauses = std::iter::repeat_with(|| {
        let pause = shortage.failed(now).pause;
        now += pause;
        pause.as_millis()
    });
    let pauses: Vec<u128> = pauses.take(10).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert_eq!(LONGEST_PAUSE, Duration::from_secs(1));
}

#[test]
fn only_a_quiet_second_makes_pauses_short_again() {
    let mut shortage = Shortage::default();
    let mut now = Instant::now();
    for expected in [5, 10, 20] {
        assert_eq!(shortage.failed(now).pause.as_millis(), expected);
        // Attempts that succeed meanwhile are not told to it.
        now += Duration::from_millis(900);
    }
    now += Duration::from_millis(121);
    assert_eq!(shortage.failed(now).pause, FIRST_PAUSE);
}

#[test]
fn a_shortage_is_told_once_a_second_with_its_count() {
    let mut shortage = Shortage::default();
    let begin = Instant::now();
    let told: Vec<_> = (0..40)
        .filter_map(|round| {
            let tell = shortage
                .failed(begin + round * Duration::from_millis(100))
                .tell;
            tell.map(|failures| (round, failures))
        })
        .collect();
    assert_eq!(told, [(0, 1), (10, 10), (20, 10), (30, 10)]);
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
