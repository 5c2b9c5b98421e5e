use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    task::{Context, Waker},
    time::Instant,
};

use futures_util::FutureExt;

use super::{BURST, FailedJoins, REFILL, SOURCES_MAX, Verdict, network_of};

/// A join that fails at once; whether it was admitted.
fn fail(limit: &FailedJoins, source: &str, now: Instant) -> bool {
    let source = network_of(source.parse().unwrap());
    let admitted = matches!(limit.try_charge(source, now), Verdict::Charged);
    if admitted {
        limit.settle(source, true, now);
    }
    admitted
}

#[test]
fn a_burst_is_allowed_then_one_failure_every_refill() {
    let limit = FailedJoins::default();
    let now = Instant::now();
    for _ in 0..BURST {
        assert!(fail(&limit, "192.0.2.1", now));
    }
    assert!(!fail(&limit, "192.0.2.1", now));
    assert!(fail(&limit, "192.0.2.2", now));
    assert!(fail(&limit, "192.0.2.1", now + REFILL));
    assert!(!fail(&limit, "192.0.2.1", now + REFILL));
}

#[test]
fn a_v6_network_is_one_source_and_a_mapped_v4_is_that_v4() {
    let limit = FailedJoins::default();
    let now = Instant::now();
    for _ in 0..BURST {
        assert!(fail(&limit, "2001:db8::1", now));
        assert!(fail(&limit, "::ffff:192.0.2.1", now));
    }
    assert!(!fail(&limit, "2001:db8::2", now));
    assert!(fail(&limit, "2001:db8:0:1::2", now));
    assert!(!fail(&limit, "192.0.2.1", now));
}

#[test]
fn joins_under_way_count_and_those_beyond_wait_for_them() {
    let limit = FailedJoins::default();
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    let charge = || limit.charge(source).now_or_never();
    let mut under_way: Vec<_> = (0..BURST).map(|_| charge().unwrap().unwrap()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let (mut first, mut second) = (pin!(limit.charge(source)), pin!(limit.charge(source)));
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    // One succeeds: one of those that wait may try.
    under_way.pop().unwrap().refund();
    let tried = first.as_mut().now_or_never().unwrap().unwrap();
    assert!(second.as_mut().poll(&mut context).is_pending());
    // All others fail, and it too: the last to wait is refused.
    drop(under_way);
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(tried);
    assert!(second.as_mut().now_or_never().unwrap().is_none());
    assert!(charge().unwrap().is_none());
}

#[test]
fn a_refusal_reaches_all_that_wait() {
    let limit = FailedJoins::default();
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    let charge = || limit.charge(source).now_or_never();
    let under_way: Vec<_> = (0..BURST).map(|_| charge().unwrap().unwrap()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(limit.charge(source))).collect();
    for join in &mut waiting {
        assert!(join.as_mut().poll(&mut context).is_pending());
    }
    drop(under_way);
    for join in waiting {
        assert!(join.now_or_never().expect("it waits for nobody").is_none());
    }
}

#[test]
fn those_that_wait_are_let_in_when_all_under_way_succeed_at_once() {
    let limit = FailedJoins::default();
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    let charge = || limit.charge(source).now_or_never();
    let under_way: Vec<_> = (0..BURST).map(|_| charge().unwrap().unwrap()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..2 * BURST)
        .map(|_| Box::pin(limit.charge(source)))
        .collect();
    for join in &mut waiting {
        assert!(join.as_mut().poll(&mut context).is_pending());
    }
    under_way.into_iter().for_each(super::Charge::refund);
    for join in waiting {
        let charge = join.now_or_never().expect("it was let in by another");
        charge.unwrap().refund();
    }
}

#[test]
fn success_costs_nothing_and_leaves_nothing() {
    let limit = FailedJoins::default();
    for _ in 0..100 {
        let charge = limit.charge("192.0.2.1".parse().unwrap()).now_or_never();
        charge.unwrap().unwrap().refund();
    }
    assert!(limit.buckets.lock().unwrap().is_empty());
}

#[test]
fn memory_is_bounded_and_a_new_source_has_a_bucket_of_its_own() {
    let limit = FailedJoins::default();
    let now = Instant::now();
    // The first one is the emptiest, and stays.
    for _ in 0..BURST {
        assert!(fail(&limit, "192.0.2.1", now));
    }
    for number in 0..u32::try_from(SOURCES_MAX).unwrap() + 50 {
        let source = Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
        assert!(fail(&limit, &source, now), "{number}");
    }
    assert!(limit.buckets.lock().unwrap().len() <= SOURCES_MAX);
    assert!(!fail(&limit, "192.0.2.1", now));
}
