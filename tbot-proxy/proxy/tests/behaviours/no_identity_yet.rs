//! A service without an SVID listens and refuses; it serves as soon as one comes.

use identity::{IdentitySource, TrustBundleSet, testing::TestCa};
use proxy::{CloseReason, Direction, Fault};

use crate::support::{CLIENT, Echo, HOUR, Peer, Proxy, config, reset};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_refuses_until_one_comes_and_after_it_is_gone() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let source = IdentitySource::new();
    let proxy = Proxy::start(config(Direction::Inbound, &app.addr, &[CLIENT]), &source);
    let peer = Peer::new(&ca, "/client");

    peer.connect(&proxy.addr()).await.unwrap_err();
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::NoIdentity);
    assert_eq!(record.reason.fault(), Fault::Local);
    assert_eq!(record.local_id, None);

    source.set(
        ca.svid("/web", HOUR).into(),
        TrustBundleSet::new([ca.bundle()]),
    );
    let mut stream = peer.admitted(&proxy.addr()).await;

    source.clear_svid();
    peer.connect(&proxy.addr()).await.unwrap_err();
    assert_eq!(proxy.records.next().await.reason, CloseReason::NoIdentity);
    crate::support::echoed(&mut stream, b"who is connected stays").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_client_is_reset() {
    let app = Echo::start().await;
    let expected = [crate::support::WEB];
    let config = config(Direction::Outbound, &app.addr, &expected);
    let proxy = Proxy::start(config, &IdentitySource::new());
    reset(&proxy.addr()).await;
    assert_eq!(proxy.records.next().await.reason, CloseReason::NoIdentity);
}
