//! A policy put in force holds for those who are connected, too, and touches no others.

use std::{sync::Arc, time::Duration};

use identity::{TrustBundleSet, testing::TestCa};
use policy::{PathPrefix, PeerPolicy, PeerRule};
use proxy::{CloseReason, Direction};
use tokio::task::JoinSet;

use crate::support::{
    CLIENT, Echo, Peer, Proxy, allow, config, cut, echoed, plain, source, try_echoed,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_it_refuses_and_no_others() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let (a, b) = ("spiffe://example.org/a", "spiffe://example.org/b");
    let proxy = Proxy::inbound(&ca, &app.addr, &[a, b]);
    let (peer_a, peer_b) = (Peer::new(&ca, "/a"), Peer::new(&ca, "/b"));
    let mut kept = Vec::new();
    let mut lost = Vec::new();
    for _ in 0..10 {
        kept.push(peer_a.admitted(&proxy.addr()).await);
        lost.push(peer_b.admitted(&proxy.addr()).await);
    }

    proxy.update(|config| config.peers = allow(&[a]));
    for stream in lost {
        cut(stream).await;
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::PolicyChanged, "{record:?}");
        assert_eq!(record.peer_id.unwrap().as_str(), b);
        assert!(record.detail.unwrap().starts_with("no allow rule matches"));
    }
    for stream in &mut kept {
        echoed(stream, b"not concerned").await;
    }
    proxy.open(10).await;

    // Another rule that allows the same peer, and other limits, cut nobody.
    let tree = PeerRule::PathPrefix(PathPrefix::parse("spiffe://example.org").unwrap());
    proxy.update(|config| {
        config.peers = PeerPolicy::new(vec![], vec![tree.clone()]);
        config.limits.max_connections = 5;
        config.resumption = false;
        config.tls12 = true;
    });
    for stream in &mut kept {
        echoed(stream, b"not concerned").await;
    }

    let banned = PeerRule::Id(a.parse().unwrap());
    proxy.update(|config| config.peers = PeerPolicy::new(vec![banned], vec![tree]));
    for stream in kept {
        cut(stream).await;
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::PolicyChanged);
        assert!(
            record
                .detail
                .unwrap()
                .starts_with("denied by id=spiffe://example.org/a")
        );
    }
    let mut stream = peer_b.admitted(&proxy.addr()).await;
    echoed(&mut stream, b"by the tree").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_sends_new_connections_elsewhere() {
    let ca = TestCa::new("example.org");
    let (old, new) = (Echo::start().await, Echo::start().await);
    let inbound = Proxy::inbound(&ca, &old.addr, &[CLIENT]);
    let outbound = Proxy::outbound(&ca, &inbound.addr());
    let mut before = plain(&outbound.addr()).await;
    echoed(&mut before, b"old").await;

    inbound.update(|config| config.connect = new.addr.clone());
    let mut after = plain(&outbound.addr()).await;
    echoed(&mut after, b"new").await;
    echoed(&mut before, b"old").await;
    assert_eq!((old.accepted(), new.accepted()), (1, 1));
    assert_eq!(inbound.service.config().connect, new.addr);
}

/// Between "register" and "authorize" there is no gap: a change that comes at any moment of a handshake either is
/// seen by the handshake or finds the connection. One that slipped through would stay open for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_slips_through_while_it_changes() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let web = source(&ca, "/web");
    let proxy = Proxy::start(config(Direction::Inbound, &app.addr, &[CLIENT]), &web);
    let peer = Arc::new(Peer::new(&ca, "/client"));
    let mut admitted = 0;
    for round in 0..60 {
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (peer, addr) = (Arc::clone(&peer), proxy.addr());
            clients.spawn(async move {
                let mut stream = peer.connect(&addr).await.ok()?;
                let served = try_echoed(&mut stream, b"in?").await.is_ok();
                Some((stream, served))
            });
        }
        // Each round at another moment of the handshakes, and at last behind them.
        let moment = if round < 56 { round * 150 } else { 500_000 };
        tokio::time::sleep(Duration::from_micros(moment)).await;
        match round % 2 {
            0 => proxy.update(|config| config.peers = allow(&["spiffe://example.org/nobody"])),
            _ => web.set_bundles(TrustBundleSet::default()),
        }
        let held: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
        admitted += held.iter().filter(|(_, served)| *served).count();
        proxy.open(0).await;
        proxy.update(|config| config.peers = allow(&[CLIENT]));
        web.set_bundles(TrustBundleSet::new([ca.bundle()]));
        proxy.records.take().await;
    }
    // The changes came before and after admission, so in between as well.
    assert!(admitted > 0 && admitted < 240, "{admitted}");
}
