use std::{sync::Arc, time::Duration};

use identity::{
    Algorithm, TrustBundle, TrustBundleSet,
    testing::{TestCa, TokenSigner},
};
use prost::Message;
use proto::workload as pb;

use super::{MAX_MESSAGE, jwt_bundles, x509, x509_bundles};
use crate::{BundleContext, HeldX509, X509Context};

fn context(ca: &TestCa, hints: &[&str], others: Vec<TrustBundle>) -> X509Context {
    let held = |hint: &&str| HeldX509 {
        svid: Arc::new(ca.svid("/app", Duration::from_secs(60))),
        hint: (*hint).to_owned(),
    };
    let bundles = others.into_iter().chain([ca.bundle()]);
    X509Context {
        svids: hints.iter().map(held).collect(),
        bundles: Arc::new(BundleContext {
            own: ca.trust_domain().clone(),
            bundles: Arc::new(TrustBundleSet::new(bundles)),
        }),
    }
}

fn read<M: Message + Default>(framed: &[u8]) -> M {
    assert_eq!(framed[0], 0);
    let length = u32::from_be_bytes(framed[1..5].try_into().unwrap());
    assert_eq!(length as usize, framed.len() - 5);
    M::decode(&framed[5..]).unwrap()
}

#[test]
fn wa_17_hints_are_unique_and_wa_32_not_too_long() {
    let ca = TestCa::new("one.example");
    let long = "x".repeat(1025);
    let most = "y".repeat(1024);
    let context = context(&ca, &["a", "", "a", "b", "", &long, &most], vec![]);
    let message: pb::X509svidResponse = read(&x509(&context).unwrap());
    let hints: Vec<_> = message
        .svids
        .iter()
        .map(|svid| svid.hint.as_str())
        .collect();
    assert_eq!(hints, ["a", "", "", "b", "", "", &most]);
}

#[test]
fn a_message_of_too_many_svids_is_bounded_and_keeps_the_first() {
    let ca = TestCa::new("one.example");
    let one = context(&ca, &["one"], vec![]);
    let svid = &one.svids[0].svid;
    let held = |index: usize| HeldX509 {
        svid: svid.clone(),
        hint: format!("{index}"),
    };
    let context = X509Context {
        svids: (0..6000).map(held).collect(),
        bundles: one.bundles.clone(),
    };
    let framed = x509(&context).unwrap();
    assert!(framed.len() <= MAX_MESSAGE + 5, "{}", framed.len());
    assert!(framed.len() > MAX_MESSAGE - 4096, "{}", framed.len());
    let message: pb::X509svidResponse = read(&framed);
    assert!(message.svids.len() > 1000 && message.svids.len() < 6000);
    for (index, svid) in message.svids.iter().enumerate() {
        assert_eq!(svid.hint, index.to_string());
    }
}

#[test]
fn an_svid_without_its_bundle_is_not_handed_out() {
    let ca = TestCa::new("one.example");
    let mut context = context(&ca, &[""], vec![]);
    Arc::make_mut(&mut context.bundles).bundles = Arc::new(TrustBundleSet::default());
    let status = x509(&context).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    context.svids.clear();
    let status = x509(&context).unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
}

#[test]
fn wa_24_jwt_bundles_have_no_keys_of_other_uses() {
    let ca = TestCa::new("one.example");
    let (jwt, wit) = (
        TokenSigner::new(Algorithm::Es256),
        TokenSigner::new(Algorithm::Es256),
    );
    let bundle = ca
        .bundle()
        .with_jwt_authorities(vec![jwt.authority()])
        .with_wit_authorities(vec![wit.authority()]);
    let other = TestCa::new("two.example").bundle();
    let context = BundleContext {
        own: ca.trust_domain().clone(),
        bundles: Arc::new(TrustBundleSet::new([bundle, other])),
    };
    let message: pb::JwtBundlesResponse = read(&jwt_bundles(&context).unwrap());
    let own: serde_json::Value =
        serde_json::from_slice(&message.bundles["spiffe://one.example"]).unwrap();
    let keys = own["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["kid"], jwt.key_id());
    assert_eq!(message.bundles["spiffe://two.example"], br#"{"keys":[]}"#);
}

#[test]
fn wa_15_crls_and_federated_bundles_go_along() {
    let ca = TestCa::new("one.example");
    let other = TestCa::new("two.example");
    let svid = ca.svid("/x", Duration::from_secs(60));
    let own = ca
        .bundle()
        .with_crls(vec![ca.revoke([svid.serial()])])
        .unwrap();
    let mut context = context(&ca, &[""], vec![]);
    Arc::make_mut(&mut context.bundles).bundles =
        Arc::new(TrustBundleSet::new([own, other.bundle()]));
    let message: pb::X509svidResponse = read(&x509(&context).unwrap());
    assert_eq!(message.crl.len(), 1);
    assert_eq!(message.svids[0].bundle, ca.certificate().as_ref());
    let foreign: Vec<_> = message.federated_bundles.into_iter().collect();
    assert_eq!(
        foreign,
        [(
            "spiffe://two.example".to_owned(),
            other.certificate().to_vec()
        )]
    );
    let message: pb::X509BundlesResponse = read(&x509_bundles(&context.bundles).unwrap());
    assert_eq!(message.bundles.len(), 2);
    assert_eq!(message.crl.len(), 1);
}
