use super::*;

#[test]
fn so_many_in_each_while_and_the_next_one_tells_of_the_others() {
    let minute = Duration::from_secs(60);
    let throttle = Throttle::new(3, minute);
    let start = Instant::now();
    let passed = |at| throttle.pass_at(at);
    let first: Vec<_> = (0..10_000).filter_map(|_| passed(start)).collect();
    assert_eq!(first, [0, 0, 0]);
    assert_eq!(passed(start + minute / 2), None);
    let later = [(); 4].map(|()| passed(start + minute));
    assert_eq!(later, [Some(9998), Some(0), Some(0), None]);
    // A clock that is read out of order.
    assert_eq!(passed(start), None);
    assert_eq!(passed(start + minute * 2), Some(2));
}

#[test]
fn one_that_passes_nothing_is_no_harm() {
    let throttle = Throttle::new(0, Duration::ZERO);
    assert_eq!((throttle.pass(), throttle.pass()), (None, None));
}
