use std::time::{Duration, SystemTime};

use identity::testing::TestCa;
use secrecy::SecretString;

use super::*;

fn kept(id: &SpiffeId, document: KeptDocument) -> Arc<KeptSvid> {
    Arc::new(KeptSvid {
        workload_identity: "app".to_owned(),
        id: id.clone(),
        hint: String::new(),
        federates_with: vec![],
        not_before: SystemTime::now(),
        not_after: SystemTime::now() + Duration::from_secs(3600),
        renew_at: None,
        document,
    })
}

fn x509(ca: &TestCa) -> Arc<KeptSvid> {
    let svid = ca.svid("/app", Duration::from_secs(3600));
    kept(&svid.id().clone(), KeptDocument::X509(Arc::new(svid)))
}

fn wit(id: &SpiffeId) -> Arc<KeptSvid> {
    let document = KeptDocument::Wit {
        token: SecretString::from(format!("token of {id}")),
        key_pkcs8: Arc::default(),
    };
    kept(id, document)
}

#[test]
fn trust_bundles_stay_the_same_object_until_they_change() {
    let ca = TestCa::new("one.example");
    let trusted = || Arc::new(TrustBundleSet::new([ca.bundle()]));
    let bundles = trusted();
    let first = Contexts::of(&[x509(&ca)], &bundles, &Contexts::default());
    let of_first = first.bundles().unwrap();
    assert!(Arc::ptr_eq(&of_first, &first.x509().unwrap().bundles));
    // A rotation of SVIDs alone.
    let second = Contexts::of(&[x509(&ca)], &bundles, &first);
    assert!(!Arc::ptr_eq(
        &first.x509().unwrap(),
        &second.x509().unwrap()
    ));
    assert!(Arc::ptr_eq(&of_first, &second.bundles().unwrap()));
    let third = Contexts::of(&[x509(&ca)], &trusted(), &second);
    assert!(!Arc::ptr_eq(&of_first, &third.bundles().unwrap()));
    // Another trust domain is another `own`.
    let other = TestCa::new("two.example");
    let fourth = Contexts::of(&[x509(&other)], &bundles, &first);
    assert_eq!(fourth.bundles().unwrap().own, *other.trust_domain());
    assert!(Contexts::of(&[], &bundles, &first).bundles().is_none());
}

#[test]
fn wit_svids_of_one_identity_are_chosen_once() {
    let [one, two, three] = ["/1", "/2", "/3"]
        .map(|path| SpiffeId::parse(&format!("spiffe://one.example{path}")).unwrap());
    let bundles = Arc::default();
    let both = Contexts::of(&[wit(&one), wit(&two)], &bundles, &Contexts::default());
    let all = both.wit(None).unwrap();
    assert_eq!(all.svids.len(), 2);
    assert!(Arc::ptr_eq(&all, &both.wit(None).unwrap()));
    let of_two = both.wit(Some(&two)).unwrap();
    assert_eq!(of_two.svids, all.svids[1..]);
    assert!(Arc::ptr_eq(&of_two, &both.wit(Some(&two)).unwrap()));
    assert!(both.wit(Some(&three)).is_none());
    assert_eq!(both.wit_of.lock().unwrap().len(), 1);
    // Where there is one identity, it is all.
    let single = Contexts::of(&[wit(&one)], &bundles, &both);
    let (all, of_one) = (single.wit(None), single.wit(Some(&one)));
    assert!(Arc::ptr_eq(&all.unwrap(), &of_one.unwrap()));
    assert!(single.wit(Some(&two)).is_none() && single.x509().is_none());
}
