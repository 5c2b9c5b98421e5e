//! An authority leaves the bundle: the connections that it vouched for are cut, and no others.

use identity::{IdentitySource, TrustBundle, TrustBundleSet, testing::TestCa};
use proxy::{CloseReason, Direction};

use crate::support::{Echo, HOUR, Peer, Proxy, config, cut, echoed, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_that_it_vouched_for() {
    let [ours, leaving, staying] =
        ["example.org", "leaving.example", "staying.example"].map(TestCa::new);
    let all = || [&ours, &leaving, &staying].map(TestCa::bundle);
    let app = Echo::start().await;
    let web = IdentitySource::with(ours.svid("/web", HOUR), TrustBundleSet::new(all()));
    let allowed = [
        "spiffe://example.org/a",
        "spiffe://leaving.example/a",
        "spiffe://staying.example/a",
    ];
    let proxy = Proxy::start(config(Direction::Inbound, &app.addr, &allowed), &web);
    let peer = |ca: &TestCa| {
        Peer::of(IdentitySource::with(
            ca.svid("/a", HOUR),
            TrustBundleSet::new(all()),
        ))
    };
    let addr = proxy.addr();
    let mut first = peer(&ours).admitted(&addr).await;
    let lost = peer(&leaving);
    let (one, two) = (lost.admitted(&addr).await, lost.admitted(&addr).await);
    let mut third = peer(&staying).admitted(&addr).await;

    web.set_bundles(TrustBundleSet::new([ours.bundle(), staying.bundle()]));
    cut(one).await;
    cut(two).await;
    for _ in 0..2 {
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::TrustWithdrawn, "{record:?}");
        assert_eq!(
            record.peer_id.unwrap().as_str(),
            "spiffe://leaving.example/a"
        );
    }
    lost.refused(&addr).await;
    assert_eq!(
        proxy.records.next().await.reason,
        CloseReason::PeerUnverified
    );
    echoed(&mut first, b"ours").await;
    echoed(&mut third, b"staying").await;

    // One of two authorities of one domain: those of the other stay.
    let next = TestCa::new("example.org");
    let both = [ours.certificate().clone(), next.certificate().clone()];
    let both = TrustBundle::new(ours.trust_domain().clone(), both.into()).unwrap();
    web.set_bundles(TrustBundleSet::new([both]));
    cut(third).await;
    proxy.records.next().await;
    let mut fresh = {
        let trust = TrustBundleSet::new([ours.bundle()]);
        Peer::of(IdentitySource::with(next.svid("/a", HOUR), trust))
            .admitted(&addr)
            .await
    };
    web.set_bundles(TrustBundleSet::new([next.bundle()]));
    cut(first).await;
    echoed(&mut fresh, b"of the new authority").await;
    assert_eq!(
        proxy.records.next().await.reason,
        CloseReason::TrustWithdrawn
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_connection_is_cut_as_well() {
    let [ours, theirs] = ["example.org", "their.example"].map(TestCa::new);
    let trust = || TrustBundleSet::new([ours.bundle(), theirs.bundle()]);
    let app = Echo::start().await;
    let web = IdentitySource::with(theirs.svid("/web", HOUR), trust());
    let inbound = Proxy::start(
        config(Direction::Inbound, &app.addr, &[crate::support::CLIENT]),
        &web,
    );
    let client = IdentitySource::with(ours.svid("/client", HOUR), trust());
    let expected = ["spiffe://their.example/web"];
    let outbound = Proxy::start(
        config(Direction::Outbound, &inbound.addr(), &expected),
        &client,
    );
    let mut stream = crate::support::plain(&outbound.addr()).await;
    echoed(&mut stream, b"trusted").await;

    client.set_bundles(TrustBundleSet::new([ours.bundle()]));
    cut(stream).await;
    assert_eq!(
        outbound.records.next().await.reason,
        CloseReason::TrustWithdrawn
    );
    let there = inbound.records.next().await;
    assert!(
        matches!(
            there.reason,
            CloseReason::PeerReset | CloseReason::TlsTruncated
        ),
        "{there:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_trust_nobody_stays() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let web = source(&ca, "/web");
    let proxy = Proxy::start(
        config(Direction::Inbound, &app.addr, &[crate::support::CLIENT]),
        &web,
    );
    let stream = Peer::new(&ca, "/client").admitted(&proxy.addr()).await;
    web.set_bundles(TrustBundleSet::default());
    cut(stream).await;
    assert_eq!(
        proxy.records.next().await.reason,
        CloseReason::TrustWithdrawn
    );
}
