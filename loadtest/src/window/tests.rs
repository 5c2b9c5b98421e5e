use super::*;

fn bounds(count: Option<u64>) -> Bounds {
    Bounds {
        warmup: Duration::from_secs(1),
        duration: Duration::from_secs(2),
        count,
        bytes: None,
        op_timeout: Duration::from_secs(5),
    }
}

#[test]
fn phases_follow_the_intended_time() {
    let start = Instant::now();
    let window = Window::new(start, bounds(None));
    let at = |ms| window.claim(start + Duration::from_millis(ms));
    assert_eq!(at(0), Phase::WarmUp);
    assert_eq!(at(999), Phase::WarmUp);
    assert_eq!(at(1_000), Phase::Measured);
    assert_eq!(at(2_999), Phase::Measured);
    assert_eq!(at(3_000), Phase::Over);
}

#[test]
fn a_count_bounds_measured_operations_only() {
    let start = Instant::now();
    let window = Window::new(start, bounds(Some(2)));
    assert_eq!(window.claim(start), Phase::WarmUp);
    let measured = start + Duration::from_secs(1);
    assert_eq!(window.claim(measured), Phase::Measured);
    assert!(!window.count_used_up());
    assert_eq!(window.claim(measured), Phase::Measured);
    assert_eq!(window.claim(measured), Phase::Over);
    assert!(window.count_used_up());
}

#[test]
fn bytes_bound_a_bulk_run() {
    let start = Instant::now();
    let window = Window::new(
        start,
        Bounds {
            bytes: Some(10),
            ..bounds(None)
        },
    );
    window.carry(9);
    assert_eq!(window.claim(start), Phase::WarmUp);
    window.carry(1);
    assert_eq!(window.claim(start), Phase::Over);
}

#[test]
fn nothing_is_begun_after_its_end_by_order() {
    let start = Instant::now();
    let window = Window::new(start, bounds(None));
    assert_eq!(window.claim(start), Phase::WarmUp);
    window.end();
    assert_eq!(window.claim(start), Phase::Over);
    assert!(window.is_ended());
}
