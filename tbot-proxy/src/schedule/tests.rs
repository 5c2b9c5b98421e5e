use std::time::UNIX_EPOCH;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn life(renew_at: Option<u64>) -> Life {
    Life {
        not_before: at(1_000),
        not_after: at(4_600),
        renew_at: renew_at.map(at),
    }
}

#[test]
fn renewal_is_when_the_issuer_asks_else_at_half_life() {
    for (renew_at, expected) in [
        (Some(2_000), 2_000),
        (None, 2_800),
        (Some(4_600), 2_800),
        (Some(9_999), 2_800),
    ] {
        assert_eq!(life(renew_at).renewal(), at(expected), "{renew_at:?}");
    }
}

#[test]
fn renewal_is_jittered_by_a_tenth() {
    let mut spread = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let mut schedule = Schedule::empty(at(1_000));
        schedule.renewed(life(Some(2_000)), at(1_000));
        assert!(!schedule.is_due(at(1_899)));
        assert!(schedule.is_due(at(2_101)));
        spread.insert(schedule.due);
    }
    assert!(spread.len() > 900);
}

#[test]
fn failures_back_off_to_a_minute() {
    let mut schedule = Schedule::empty(at(0));
    for longest in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let delay = schedule.failed(at(0), false).as_secs_f64();
        assert!(delay <= f64::from(longest), "{delay} > {longest}");
        assert!(
            delay >= f64::from(longest) / 2.0,
            "{delay} < half of {longest}"
        );
    }
    schedule.renewed(life(None), at(1_000));
    assert!(schedule.failed(at(1_000), false) <= Duration::from_secs(1));
    assert!(schedule.failed(at(1_000), true) >= Duration::from_secs(30));
}

#[test]
fn back_off_leaves_time_before_expiry() {
    let mut schedule = Schedule::empty(at(1_000));
    schedule.renewed(life(None), at(1_000));
    for _ in 0..10 {
        schedule.failed(at(4_580), false);
    }
    assert!(schedule.failed(at(4_580), false) <= Duration::from_secs(10));
    assert!(schedule.failed(at(4_599), false) <= Duration::from_secs(1));
    assert!(!schedule.has_expired(at(4_599)));
    assert!(schedule.has_expired(at(4_600)));
}

#[test]
fn hastening_only_brings_forward() {
    let mut schedule = Schedule::empty(at(1_000));
    schedule.renewed(life(Some(2_000)), at(1_000));
    schedule.hasten(Duration::from_secs(10), at(1_100));
    assert!(schedule.is_due(at(1_110)));
    let due = schedule.due;
    schedule.hasten(Duration::from_secs(86_400), at(1_100));
    assert!(schedule.due <= due);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_due_or_after_half_a_minute() {
    let mut schedule = Schedule::empty(at(0));
    let started = tokio::time::Instant::now();
    schedule.wait(at(0)).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    schedule.renewed(life(Some(2_000)), at(1_000));
    schedule.wait(at(1_000)).await;
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[test]
fn a_clock_that_steps_back_makes_due_what_was_set_by_it() {
    const HOURS: u64 = 7_200;
    // Each was set when the clock was two hours ahead.
    let ahead = at(1_000 + HOURS);
    let mut failed = Schedule::empty(ahead);
    failed.failed(ahead, true);
    let mut lost = Schedule::overdue(life(None), ahead);
    lost.failed(ahead, true);
    lost.lost(ahead);
    let mut renewed = Schedule::empty(ahead);
    renewed.renewed(life(Some(2_000 + HOURS)), ahead);
    let mut hastened = Schedule::empty(ahead);
    hastened.renewed(life(Some(2_000 + HOURS)), ahead);
    hastened.hasten(Duration::from_secs(86_400), ahead);
    for schedule in [failed, lost, renewed, hastened] {
        assert!(schedule.is_due(at(1_000)), "{schedule:?}");
    }
}

#[test]
fn what_is_set_after_a_step_back_counts_from_there() {
    let (ahead, right) = (at(8_200), at(1_000));
    let schedule = || {
        let mut schedule = Schedule::empty(ahead);
        schedule.failed(ahead, true);
        schedule
    };
    let mut failed = schedule();
    let delay = failed.failed(right, false);
    assert!(delay <= Duration::from_secs(60));
    assert!(!failed.is_due(right) && failed.is_due(right + delay));
    let mut renewed = schedule();
    renewed.renewed(life(Some(2_000)), right);
    assert!(!renewed.is_due(at(1_899)) && renewed.is_due(at(2_101)));
    // What is due stays due, whoever brings it forward.
    let mut hastened = schedule();
    hastened.hasten(Duration::from_secs(86_400), right);
    assert!(hastened.is_due(right));
    let mut lost = schedule();
    lost.lost(right);
    assert!(lost.is_due(right));
}

#[test]
fn a_clock_that_steps_forward_makes_due_and_expired_what_it_steps_over() {
    let mut schedule = Schedule::empty(at(1_000));
    schedule.renewed(life(Some(2_000)), at(1_000));
    assert!(!schedule.is_due(at(1_001)));
    assert!(schedule.is_due(at(3_000)) && !schedule.has_expired(at(3_000)));
    assert!(schedule.is_due(at(9_000)) && schedule.has_expired(at(9_000)));
    let mut failed = Schedule::empty(at(1_000));
    failed.failed(at(1_000), true);
    assert!(failed.is_due(at(1_061)));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_once_after_a_step_back() {
    let mut schedule = Schedule::empty(at(8_200));
    schedule.failed(at(8_200), true);
    let started = tokio::time::Instant::now();
    schedule.wait(at(1_000)).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
}
