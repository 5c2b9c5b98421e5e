use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use identity::{ChainVerifier, PeerIdentity, TrustBundleSet, testing::TestCa};
use tokio::time::{advance, pause};

use super::{Bytes, GIVES_WAY_AFTER, Registry, Room};
use crate::{CloseReason, close_reason::Close};

/// A proven peer whose identity ends after `ttl`.
fn peer(ca: &TestCa, path: &str, ttl: Duration) -> PeerIdentity {
    let svid = ca.svid(path, ttl);
    let bundles = TrustBundleSet::new([ca.bundle()]);
    let now = SystemTime::now();
    ChainVerifier::new(0)
        .verify(svid.chain(), &bundles, 0, now)
        .unwrap()
}

fn overload(_: Duration) -> Close {
    CloseReason::Overload.into()
}

#[tokio::test]
async fn connections_of_one_chain_are_one_peer_and_end_as_one() {
    let ca = TestCa::new("td");
    let registry = Registry::default();
    let identity = peer(&ca, "/a", Duration::from_secs(100));
    let lives = [(); 3].map(|()| registry.enter());
    let registered = lives
        .each_ref()
        .map(|live| registry.register(live, identity.clone()).unwrap());
    assert_eq!(registered[0].peer, registered[2].peer);
    assert!(Arc::ptr_eq(
        &registered[0].identity,
        &registered[2].identity
    ));
    assert_eq!(registry.chains().len(), 1);

    let close = Close::from(CloseReason::TrustWithdrawn);
    registry.cut_peer(registered[0].peer, &close);
    for live in &lives {
        assert_eq!(live.take_cut().unwrap().reason, CloseReason::TrustWithdrawn);
        registry.leave(live, Some(registered[0].peer));
    }
    assert_eq!((registry.open(), registry.chains().len()), (0, 0));
    assert_eq!(registry.next_expiry(), None);
}

#[tokio::test]
async fn expiries_come_soonest_first_and_once() {
    let ca = TestCa::new("td");
    let registry = Registry::default();
    let now = SystemTime::now();
    let mut registered = Vec::new();
    for ttl in [300, 100, 200] {
        let identity = peer(&ca, "/a", Duration::from_secs(ttl));
        let live = registry.enter();
        registered.push((registry.register(&live, identity).unwrap(), live));
    }
    let first = registered[1].0.identity.not_after;
    assert_eq!(registry.next_expiry(), Some(first));
    assert!(registry.take_expired(now).is_empty());
    let expired = registry.take_expired(now + Duration::from_secs(250));
    let peers: Vec<_> = expired.iter().map(|(number, _)| *number).collect();
    assert_eq!(peers, [registered[1].0.peer, registered[2].0.peer]);
    assert!(
        registry
            .take_expired(now + Duration::from_secs(250))
            .is_empty()
    );
    assert_eq!(
        registry.next_expiry(),
        Some(registered[0].0.identity.not_after)
    );
    assert!(registry.is_expired(peers[0], first));
    assert!(!registry.is_expired(registered[0].0.peer, first));
}

#[tokio::test]
async fn only_the_unproven_give_way_oldest_first_and_not_at_once() {
    pause();
    let ca = TestCa::new("td");
    let registry = Registry::default();
    let identity = peer(&ca, "/a", Duration::from_secs(100));
    let proven = registry.enter();
    registry.register(&proven, identity).unwrap();
    let oldest = registry.enter();
    advance(Duration::from_millis(10)).await;
    let younger = registry.enter();
    assert_eq!(registry.room(4, 3), Room::Free);
    let full = Room::Full {
        gives_way: Some(oldest.entered + GIVES_WAY_AFTER),
    };
    assert_eq!(registry.room(3, 3), full);
    assert_eq!(registry.room(4, 2), full);

    registry.cut_oldest_pending(overload);
    assert!(oldest.take_cut().is_none());
    advance(GIVES_WAY_AFTER).await;
    registry.cut_oldest_pending(overload);
    assert_eq!(oldest.take_cut().unwrap().reason, CloseReason::Overload);
    // It is open until its task has ended, and until then no other gives way.
    registry.cut_oldest_pending(overload);
    assert!(younger.take_cut().is_none());
    assert_eq!(registry.open(), 3);
    assert_eq!(registry.room(3, 3), Room::Full { gives_way: None });
    registry.leave(&oldest, None);
    assert_eq!(registry.room(3, 3), Room::Free);
    registry.cut_oldest_pending(overload);
    assert!(younger.take_cut().is_some());
    registry.leave(&younger, None);
    registry.cut_oldest_pending(overload);
    assert!(proven.take_cut().is_none());
}

/// Either it gives way or its peer is proven, at whatever moment the two meet.
#[tokio::test]
async fn a_proven_connection_is_not_cut_and_one_that_is_cut_is_not_proven() {
    let ca = TestCa::new("td");
    let identity = peer(&ca, "/a", Duration::from_secs(100));
    pause();
    // For its clock.
    let runtime = tokio::runtime::Handle::current();
    let (mut proven, mut cut) = (0, 0);
    for round in 0..10_000 {
        let registry = Registry::default();
        let live = registry.enter();
        advance(GIVES_WAY_AFTER).await;
        let together = Barrier::new(2);
        let identity = identity.clone();
        let registered = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _entered = runtime.enter();
                together.wait();
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                registry.cut_oldest_pending(overload);
            });
            together.wait();
            (0..50 - round % 50).for_each(|_| std::hint::spin_loop());
            registry.register(&live, identity)
        });
        match (registered, live.take_cut()) {
            (Some(_), None) => proven += 1,
            (None, Some(_)) => cut += 1,
            (Some(_), Some(_)) => panic!("proven, and cut all the same"),
            (None, None) => panic!("neither"),
        }
    }
    assert!(proven > 0 && cut > 0, "{proven} {cut}");
}

#[tokio::test]
async fn a_cut_reaches_a_task_that_is_attached_later_and_the_first_reason_holds() {
    let registry = Registry::default();
    let live = registry.enter();
    assert_eq!(registry.cut_everything(&CloseReason::Drained.into()), 1);
    assert_eq!(registry.cut_everything(&CloseReason::Stopped.into()), 0);
    let task = tokio::spawn(std::future::pending::<()>());
    live.attach(task.abort_handle());
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(live.take_cut().unwrap().reason, CloseReason::Drained);
}

#[tokio::test]
async fn nothing_lives_in_a_registry_that_is_shut() {
    let registry = Registry::default();
    let before = registry.enter();
    registry.shut(&CloseReason::Stopped.into());
    let after = registry.enter();
    for live in [before, after] {
        let task = tokio::spawn(std::future::pending::<()>());
        live.attach(task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(live.take_cut().unwrap().reason, CloseReason::Stopped);
    }
}

#[tokio::test]
async fn bytes_are_told_once_however_many_ask() {
    let registry = Registry::default();
    let live = registry.enter();
    let done = AtomicBool::new(false);
    let asks = || {
        let mut told = Bytes::default();
        while !done.load(Ordering::Relaxed) {
            told += live.take_untold();
        }
        told
    };
    let mut told = Bytes::default();
    std::thread::scope(|scope| {
        let asking = [(); 3].map(|()| scope.spawn(asks));
        for _ in 0..500_000 {
            live.counters.tls_to_plain.fetch_add(3, Ordering::Relaxed);
            live.counters.plain_to_tls.fetch_add(5, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
        for asked in asking {
            told += asked.join().unwrap();
        }
    });
    told += live.take_untold();
    assert_eq!(told, live.bytes());
    assert_eq!((told.to_plain, told.to_tls), (1_500_000, 2_500_000));
    assert_eq!(live.take_untold(), Bytes::default());
}
