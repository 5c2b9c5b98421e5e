//! A live connection ends when its peer's identity does (DESIGN D4).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{IdentitySource, TrustBundleSet, testing::TestCa};
use proxy::{CloseReason, Direction, OnExpiry};

use crate::support::{CLIENT, Echo, Peer, Proxy, config, cut, echoed, source};

/// Long enough for a handshake on a busy machine.
const TTL: Duration = Duration::from_secs(8);

fn short_lived(ca: &TestCa, path: &str) -> Arc<IdentitySource> {
    let trust = TrustBundleSet::new([ca.bundle()]);
    IdentitySource::with(ca.svid(path, TTL), trust)
}

fn expiry(source: &IdentitySource) -> SystemTime {
    source.current().svid.as_ref().unwrap().not_after()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_cut_when_the_svid_and_the_grace_have_ended() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    for grace in [Duration::ZERO, Duration::from_secs(1)] {
        let mut config = config(
            Direction::Inbound,
            &app.addr,
            &[CLIENT, "spiffe://example.org/long"],
        );
        config.limits.lease_grace = grace;
        let proxy = Proxy::start(config, &source(&ca, "/web"));
        let identity = short_lived(&ca, "/client");
        let ends = expiry(&identity) + grace;
        let mut other = Peer::new(&ca, "/long").admitted(&proxy.addr()).await;
        let stream = Peer::of(identity).admitted(&proxy.addr()).await;

        cut(stream).await;
        assert!(SystemTime::now() >= ends);
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::PeerSvidExpired, "{record:?}");
        assert_eq!(record.peer_expires.unwrap() + grace, ends);
        assert!(record.detail.unwrap().contains(CLIENT));
        echoed(&mut other, b"another's identity has not ended").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_expiry_of_our_own_svid_cuts_nothing() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let ours = short_lived(&ca, "/web");
    let ends = expiry(&ours);
    let proxy = Proxy::start(config(Direction::Inbound, &app.addr, &[CLIENT]), &ours);
    let mut stream = Peer::new(&ca, "/client").admitted(&proxy.addr()).await;
    while SystemTime::now() < ends + Duration::from_millis(500) {
        echoed(&mut stream, b"still").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    echoed(&mut stream, b"after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_expiry_log_keeps_it_and_close_may_come_later() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.on_expiry = OnExpiry::Log;
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let identity = short_lived(&ca, "/client");
    let ends = expiry(&identity);
    let peer = Peer::of(identity);
    let mut stream = peer.admitted(&proxy.addr()).await;
    while SystemTime::now() < ends + Duration::from_millis(500) {
        echoed(&mut stream, b"still").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A new connection of that peer is no matter of leases.
    peer.refused(&proxy.addr()).await;
    assert_eq!(
        proxy.records.next().await.reason,
        CloseReason::PeerUnverified
    );
    echoed(&mut stream, b"alive").await;

    proxy.update(|config| config.on_expiry = OnExpiry::Close);
    cut(stream).await;
    assert_eq!(
        proxy.records.next().await.reason,
        CloseReason::PeerSvidExpired
    );
}
