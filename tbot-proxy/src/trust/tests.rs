use identity::testing::TestCa;

use super::*;

fn message(cas: &[&TestCa], renew_epoch: u64) -> WatchResponse {
    WatchResponse {
        trust_bundles: cas
            .iter()
            .map(|ca| WireBundle {
                trust_domain: ca.trust_domain().to_string(),
                spiffe_bundle_json: ca.bundle().to_spiffe_json(),
            })
            .collect(),
        renew_epoch,
        renew_within: Some(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        }),
        ..WatchResponse::default()
    }
}

fn order(epoch: u64, local: u64) -> RenewOrder {
    RenewOrder {
        epoch,
        local,
        ..RenewOrder::default()
    }
}

#[test]
fn every_message_is_complete_state() {
    let (one, two) = (TestCa::new("one"), TestCa::new("two"));
    let trust = Trust::new(TrustBundleSet::default());
    let mut bundles = trust.bundles();
    trust
        .accept(one.trust_domain(), message(&[&one, &two], 0))
        .unwrap();
    assert_eq!(bundles.borrow_and_update().iter().count(), 2);
    trust
        .accept(one.trust_domain(), message(&[&one, &two], 0))
        .unwrap();
    assert!(!bundles.has_changed().unwrap(), "the same is no change");
    trust
        .accept(two.trust_domain(), message(&[&two], 0))
        .unwrap();
    assert!(bundles.borrow_and_update().get("one").is_none());

    trust.set_bundle(one.bundle());
    assert_eq!(bundles.borrow_and_update().iter().count(), 2);
}

#[test]
fn a_message_that_cannot_be_used_changes_nothing() {
    let one = TestCa::new("one");
    let trust = Trust::new(TrustBundleSet::new([one.bundle()]));
    let mut rubbish = message(&[&one], 9);
    rubbish.trust_bundles[0].spiffe_bundle_json = b"{}".to_vec();
    let mut no_domain = message(&[&one], 9);
    no_domain.trust_bundles[0].trust_domain = "One".to_owned();
    for message in [rubbish, no_domain, message(&[], 9)] {
        trust.accept(one.trust_domain(), message).unwrap_err();
        assert!(trust.bundles().borrow().get("one").is_some());
        assert_eq!(*trust.order().borrow(), None);
    }
}

#[test]
fn orders_are_told_once() {
    let one = TestCa::new("one");
    let trust = Trust::new(TrustBundleSet::default());
    let mut orders = trust.order();
    trust
        .accept(one.trust_domain(), message(&[&one], 4))
        .unwrap();
    assert_eq!(orders.borrow_and_update().unwrap().epoch, 4);
    assert_eq!(
        trust.order().borrow().unwrap().within,
        Duration::from_secs(2)
    );
    trust
        .accept(one.trust_domain(), message(&[&one], 4))
        .unwrap();
    assert!(!orders.has_changed().unwrap());
    trust.order_now();
    let now = orders.borrow_and_update().unwrap();
    assert_eq!((now.epoch, now.local, now.within), (4, 1, Duration::ZERO));
}

#[test]
fn an_identity_follows_orders_newer_than_its_own() {
    for (epoch, local, order, older) in [
        (Some(4), 0, order(4, 0), false),
        (Some(4), 0, order(5, 0), true),
        (Some(4), 0, order(4, 1), true),
        (Some(4), 1, order(4, 1), false),
        // The issuer was set back: its number is the one that counts.
        (Some(4), 0, order(3, 0), false),
        // Not known when it was obtained: this is it.
        (None, 0, order(9, 0), false),
    ] {
        let mut obtained = Obtained {
            epoch,
            local,
            policy: None,
            refusals: 0,
        };
        assert_eq!(
            obtained.is_older_than(order),
            older,
            "{epoch:?} {local} {order:?}"
        );
        if !older {
            assert_eq!(obtained.epoch, Some(order.epoch));
            let next = RenewOrder {
                epoch: order.epoch + 1,
                ..order
            };
            assert!(obtained.is_older_than(next));
        }
    }
}

#[test]
fn a_message_without_our_own_trust_domain_changes_nothing() {
    let (own, other) = (TestCa::new("own"), TestCa::new("other"));
    let trust = Trust::new(TrustBundleSet::new([own.bundle()]));
    let mut without_authority = message(&[&own, &other], 9);
    without_authority.trust_bundles[0].spiffe_bundle_json = br#"{"keys":[]}"#.to_vec();
    for message in [message(&[&other], 9), without_authority] {
        let error = trust.accept(own.trust_domain(), message).unwrap_err();
        assert!(error.contains("own"), "{error}");
        let bundles = trust.bundles().borrow().clone();
        assert_eq!(**bundles.get("own").unwrap(), own.bundle());
        assert!(bundles.get("other").is_none());
        assert_eq!(*trust.order().borrow(), None);
    }
}

#[test]
fn fe_07_bundles_of_trust_domains_stay_apart_and_the_own_one_cannot_be_replaced() {
    let (own, other, false_own) = (TestCa::new("own"), TestCa::new("other"), TestCa::new("own"));
    let trust = Trust::new(TrustBundleSet::new([own.bundle()]));
    for cas in [[&own, &false_own], [&false_own, &own]] {
        let error = trust.accept(own.trust_domain(), message(&cas, 1));
        assert!(error.unwrap_err().contains("two trust bundles of own"));
        let bundles = trust.bundles().borrow().clone();
        assert_eq!(**bundles.get("own").unwrap(), own.bundle());
    }
    // One that cannot be read concerns nobody else.
    let mut damaged = message(&[&own, &other], 1);
    damaged.trust_bundles[1].spiffe_bundle_json = b"{}".to_vec();
    trust.accept(own.trust_domain(), damaged).unwrap();
    let bundles = trust.bundles().borrow().clone();
    assert_eq!(bundles.iter().count(), 1);
    trust
        .accept(own.trust_domain(), message(&[&own, &other], 1))
        .unwrap();
    let bundles = trust.bundles().borrow().clone();
    assert_eq!(**bundles.get("own").unwrap(), own.bundle());
    assert_eq!(**bundles.get("other").unwrap(), other.bundle());
}

#[test]
fn another_policy_is_a_reason_to_ask_again_whichever_way_its_number_went() {
    let under = |policy| RenewOrder {
        policy: Some(policy),
        policy_within: Duration::from_secs(3),
        ..order(4, 0)
    };
    let window = Some(Duration::from_secs(3));
    let mut obtained = Obtained::under(Some(under(7)));
    assert_eq!(obtained.renewal_within(under(7)), None);
    assert_eq!(obtained.renewal_within(under(8)), window);
    assert_eq!(obtained.renewal_within(under(6)), window);
    // An operator's order is stronger: it has its own window.
    assert_eq!(obtained.renewal_within(order(5, 0)), Some(Duration::ZERO));
    // Not known when it was obtained: this is it.
    let mut unknown = Obtained::under(None);
    assert_eq!(unknown.renewal_within(under(7)), None);
    assert_eq!(unknown.renewal_within(under(8)), window);
}

#[test]
fn another_policy_is_told() {
    let one = TestCa::new("one");
    let trust = Trust::new(TrustBundleSet::default());
    let mut orders = trust.order();
    for (policy_epoch, is_news) in [(1, true), (1, false), (2, true), (1, true)] {
        orders.mark_unchanged();
        let message = WatchResponse {
            policy_epoch,
            ..message(&[&one], 0)
        };
        trust.accept(one.trust_domain(), message).unwrap();
        assert_eq!(orders.has_changed().unwrap(), is_news, "{policy_epoch}");
    }
}
