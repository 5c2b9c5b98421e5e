use std::time::Duration;

use super::*;
use crate::testing::TestCa;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn watchers_see_each_change_once_and_readers_no_later() {
    let ca = TestCa::new("example.org");
    let source = IdentitySource::new();
    let mut watcher = source.subscribe();
    assert!(source.current().svid.is_none() && source.current().bundles.is_empty());

    source.set(
        Arc::new(ca.svid("/a", HOUR)),
        TrustBundleSet::new([ca.bundle()]),
    );
    watcher.changed().await.expect("alive");
    let seen = watcher.borrow_and_update().clone();
    assert!(Arc::ptr_eq(&seen, &source.current()));
    assert!(!watcher.has_changed().expect("alive"));
}

#[test]
fn generations_rise_with_what_changed() {
    let ca = TestCa::new("example.org");
    let source = IdentitySource::with(ca.svid("/a", HOUR), TrustBundleSet::new([ca.bundle()]));
    let first = source.current();

    source.set_svid(Arc::new(ca.svid("/a", HOUR)));
    let second = source.current();
    assert!(second.generation > first.generation);
    assert_eq!(second.bundle_generation, first.bundle_generation);
    assert!(Arc::ptr_eq(&second.bundles, &first.bundles));

    source.set_bundles(TrustBundleSet::default());
    let third = source.current();
    assert!(third.generation > second.generation);
    assert!(third.bundle_generation > second.bundle_generation);

    source.clear_svid();
    let fourth = source.current();
    assert!(fourth.svid.is_none() && fourth.generation > third.generation);
    assert_eq!(fourth.bundle_generation, third.bundle_generation);
}

#[test]
fn equal_content_changes_nothing() {
    let ca = TestCa::new("example.org");
    let svid = Arc::new(ca.svid("/a", HOUR));
    let source = IdentitySource::new();
    source.set(svid.clone(), TrustBundleSet::new([ca.bundle()]));
    let before = source.current();
    let watcher = source.subscribe();

    // Read anew from text: equal, not the same.
    let pem = ca.bundle().to_pem();
    let equal = crate::TrustBundle::from_pem(ca.trust_domain().clone(), pem.as_bytes());
    source.set_bundles(TrustBundleSet::new(equal));
    source.set_svid(svid.clone());
    source.set(svid, TrustBundleSet::new([ca.bundle()]));
    assert!(Arc::ptr_eq(&before, &source.current()));
    assert!(!watcher.has_changed().expect("alive"));

    // A sequence number or a CRL is content.
    source.set_bundles(TrustBundleSet::new([ca.bundle().with_sequence(2)]));
    assert!(watcher.has_changed().expect("alive"));
    let with_sequence = source.current().bundle_generation;
    let with_crl = ca
        .bundle()
        .with_sequence(2)
        .with_crls(vec![ca.revoke([])])
        .expect("a CRL");
    source.set_bundles(TrustBundleSet::new([with_crl]));
    assert!(source.current().bundle_generation > with_sequence);
}

#[test]
fn generations_are_unique_in_the_process() {
    let (one, two) = (IdentitySource::new(), IdentitySource::new());
    assert_ne!(one.current().generation, two.current().generation);
    assert_ne!(
        one.current().bundle_generation,
        two.current().bundle_generation
    );
}
