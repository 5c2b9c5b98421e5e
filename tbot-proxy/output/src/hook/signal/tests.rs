use super::*;

#[test]
fn a_name_may_hold_anything() {
    let fields = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0";
    let stat = Stat::parse(&format!("12 (a) b (c) {fields}")).unwrap();
    assert_eq!(stat.name, "a) b (c");
    assert_eq!(stat.parent, Some(7));
    assert_eq!(stat.start, Duration::from_millis(2_500));
    assert!(Stat::parse("12 (a").is_none());
    assert!(Stat::parse("12 (a) S 1").is_none());
    let long = Stat::parse(&format!("12 (exactly-fifteen) {fields}")).unwrap();
    assert!(long.has_name("exactly-fifteen-and-more"));
    assert!(!long.has_name("exactly"));
}

#[test]
fn our_own_start_is_in_the_past() {
    let stat = Stat::of(rustix::process::getpid()).unwrap();
    let started = stat.started().unwrap();
    assert!(started <= SystemTime::now() + ROUNDING);
}
