//! What changed between the full handshake and the resumed one counts: rustls does not verify again when it
//! resumes (DESIGN D3).

use std::time::{Duration, SystemTime};

use identity::{IdentitySource, TrustBundleSet, testing::TestCa};
use proxy::{CloseReason, Direction};
use tokio_rustls::rustls::HandshakeKind;

use crate::support::{CLIENT, Echo, Peer, Proxy, allow, config, finish, plain, reset, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_turned_against_the_peer_refuses_it() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let peer = Peer::new(&ca, "/client");

    finish(peer.admitted(&proxy.addr()).await).await;
    assert!(!proxy.records.next().await.resumed);

    // Resumption works, so that its refusal below means something.
    let stream = peer.admitted(&proxy.addr()).await;
    assert_eq!(
        stream.get_ref().1.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    finish(stream).await;
    let record = proxy.records.next().await;
    assert!(record.resumed);
    assert_eq!(record.peer_id.unwrap().as_str(), CLIENT);
    assert_eq!(app.accepted(), 2);

    proxy.update(|config| config.peers = allow(&["spiffe://example.org/other"]));
    peer.refused(&proxy.addr()).await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::PeerNotAllowed, "{record:?}");
    assert_eq!(app.accepted(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_expired_meanwhile_is_refused() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let svid = ca.svid("/client", Duration::from_secs(8));
    let ends = svid.not_after();
    let trust = TrustBundleSet::new([ca.bundle()]);
    let peer = Peer::of(IdentitySource::with(svid, trust));

    finish(peer.admitted(&proxy.addr()).await).await;
    assert_eq!(proxy.records.next().await.reason, CloseReason::Complete);

    // The clock is the event.
    let left = ends.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(1100)).await;
    peer.refused(&proxy.addr()).await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::PeerUnverified, "{record:?}");
    assert!(
        record.resumed,
        "the full handshake was refused, which shows less: {record:?}"
    );
    assert_eq!(app.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_service_forgets_its_sessions_too() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let server = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let expected = [crate::support::WEB];
    let config = config(Direction::Outbound, &server.addr(), &expected);
    let proxy = Proxy::start(config, &source(&ca, "/client"));

    for resumed in [false, true] {
        let mut stream = plain(&proxy.addr()).await;
        crate::support::echoed(&mut stream, b"hello").await;
        finish(stream).await;
        assert_eq!(proxy.records.next().await.resumed, resumed);
        server.records.next().await;
    }
    proxy.update(|config| config.peers = allow(&["spiffe://example.org/other"]));
    reset(&proxy.addr()).await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::PeerNotAllowed, "{record:?}");
    assert!(!record.resumed);
    // The server let us in; it heard nothing.
    assert_eq!(server.records.next().await.bytes_in, 0);
}
