use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use super::{BURST, FailedJoins, REFILL, SOURCES_MAX};

#[test]
fn a_burst_is_allowed_then_one_failure_every_refill() {
    let limit = FailedJoins::default();
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    let now = Instant::now();
    for _ in 0..BURST {
        assert!(limit.admits(source, now));
        limit.failed(source, now);
    }
    assert!(!limit.admits(source, now));
    assert!(limit.admits("192.0.2.2".parse().unwrap(), now));
    assert!(limit.admits(source, now + REFILL));
    limit.failed(source, now + REFILL);
    assert!(!limit.admits(source, now + REFILL));
}

#[test]
fn a_v6_network_is_one_source_and_a_mapped_v4_is_that_v4() {
    let limit = FailedJoins::default();
    let now = Instant::now();
    for _ in 0..BURST {
        limit.failed("2001:db8::1".parse().unwrap(), now);
        limit.failed("::ffff:192.0.2.1".parse().unwrap(), now);
    }
    assert!(!limit.admits("2001:db8::2".parse().unwrap(), now));
    assert!(limit.admits("2001:db8:0:1::2".parse().unwrap(), now));
    assert!(!limit.admits("192.0.2.1".parse().unwrap(), now));
}

#[test]
fn memory_is_bounded() {
    let limit = FailedJoins::default();
    let now = Instant::now();
    for number in 0..u32::try_from(SOURCES_MAX).unwrap() + 50 {
        limit.failed(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)), now);
    }
    assert!(limit.full_again.lock().unwrap().len() <= SOURCES_MAX + 1);
}
