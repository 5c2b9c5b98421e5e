//! The issuer's keys are succeeded by order; bots and joining agents of either CA go on.

use std::{sync::Arc, time::SystemTime};

use identity::{
    ChainVerifier, ClientOptions, TrustBundle, TrustBundleSet, TrustDomain, pinned_client_config,
};
use proto::{
    issue::v1::{Svid, WatchRequest, issue_service_client::IssueServiceClient},
    join::v1::TrustBundle as Wire,
};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::harness::{Issuer, TRUST_DOMAIN, block_on, csr, one_line_failure, the_svid, x509};

fn keys(issuer: &Issuer, key_use: &str, state: &str) -> Vec<Value> {
    let all = issuer.json(&["authority", "list"]);
    let mut keys = all.as_array().unwrap().clone();
    keys.retain(|key| key["use"] == key_use && key["state"] == state);
    keys
}

fn bundle(wire: &Wire) -> TrustBundle {
    let trust_domain = TrustDomain::parse(&wire.trust_domain).unwrap();
    TrustBundle::from_spiffe_json(trust_domain, &wire.spiffe_bundle_json).unwrap()
}

fn is_trusted(svid: &Svid, bundle: &TrustBundle) -> bool {
    let chain = super::harness::chain(svid);
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    let bundles = TrustBundleSet::new([bundle.clone()]);
    let verified = ChainVerifier::new(0).verify(&chain, &bundles, 1, SystemTime::now());
    verified.is_ok()
}

/// A handshake as a joining agent does it.
async fn pin_is_accepted(issuer: &Issuer, pin: &str) -> bool {
    let options = ClientOptions {
        alpn: vec![b"h2".to_vec()],
        ..ClientOptions::default()
    };
    let config = pinned_client_config(&[pin.parse().unwrap()], "/issuer", &options).unwrap();
    issuer.tls([127, 0, 0, 1], config).await.is_ok()
}

#[test]
fn fe_01_fe_02_a_successor_is_published_then_signs_and_its_predecessor_stays() {
    let mut issuer = Issuer::start();
    for key_use in ["x509", "jwt-es256", "jwt-rs256", "audit"] {
        assert_eq!(keys(&issuer, key_use, "active").len(), 1, "{key_use}");
    }
    assert_eq!(keys(&issuer, "wit", "active").len(), 0);
    let old_pin = issuer.pin.clone();
    let (bot, published) = block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let mut news = client.watch(WatchRequest {}).await.unwrap().into_inner();
        let first = bundle(&news.message().await.unwrap().unwrap().trust_bundles[0]);

        issuer.run(&["authority", "rotate", "--use", "x509"]);
        let second = bundle(&news.message().await.unwrap().unwrap().trust_bundles[0]);
        assert!(second.sequence() > first.sequence());
        assert_eq!(second.x509_authorities().len(), 2);
        assert_eq!(issuer.json(&["status"])["ca_pin"], old_pin.as_str());
        assert!(is_trusted(
            &issuer.issue(&bot, "app").await.unwrap(),
            &first
        ));
        let again = issuer.run(&["authority", "rotate", "--use", "x509"]);
        assert!(again.contains("prepared already"), "{again}");

        issuer.run(&["authority", "rotate", "--use", "x509", "--now"]);
        // The bundle has both, as before: its sequence tells of content alone (TB-03).
        let third = bundle(&news.message().await.unwrap().unwrap().trust_bundles[0]);
        assert_eq!(third, second);
        let svid = issuer.issue(&bot, "app").await.unwrap();
        assert!(is_trusted(&svid, &second) && !is_trusted(&svid, &first));
        (bot, second)
    });
    let new_pin = issuer.json(&["status"])["ca_pin"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(new_pin, old_pin);
    let retired = keys(&issuer, "x509", "retired");
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0]["ca_pin"], old_pin.as_str());
    for (event, pin) in [
        ("authority.create", &new_pin),
        ("authority.activate", &new_pin),
        ("authority.retire", &old_pin),
    ] {
        let event = issuer.last_event(event);
        assert_eq!(event["fields"]["ca_pin"], pin.as_str(), "{event}");
        assert!(
            event["fields"]["user"]
                .as_str()
                .unwrap()
                .starts_with("uid:"),
            "{event}"
        );
    }

    issuer.kill();
    issuer.restart();
    block_on(async {
        // An agent that has not heard of the new CA, and new ones that pin either.
        assert!(is_trusted(
            &issuer.issue(&bot, "app").await.unwrap(),
            &published
        ));
        assert!(pin_is_accepted(&issuer, &old_pin).await);
        assert!(pin_is_accepted(&issuer, &new_pin).await);
        let other = format!("sha256:{}", "0".repeat(64));
        assert!(!pin_is_accepted(&issuer, &other).await);
    });
    let document = issuer.run(&["bundle", "-o", "spiffe"]);
    let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let read = TrustBundle::from_spiffe_json(trust_domain, document.as_bytes());
    assert_eq!(read, Ok(published));
}

#[test]
fn every_use_is_rotated_when_none_is_named_and_only_known_ones_can_be() {
    let issuer = Issuer::start_with(&["--wit"]);
    let uses = ["x509", "jwt-es256", "jwt-rs256", "wit", "audit"];
    let before = uses.map(|key_use| keys(&issuer, key_use, "active")[0]["key_id"].clone());
    issuer.run(&["authority", "rotate", "--now"]);
    for (key_use, before) in uses.iter().zip(before) {
        assert_ne!(
            keys(&issuer, key_use, "active")[0]["key_id"],
            before,
            "{key_use}"
        );
        assert_eq!(
            keys(&issuer, key_use, "retired")[0]["key_id"],
            before,
            "{key_use}"
        );
    }
    let refused = issuer.fails(&["authority", "rotate", "--use", "x509,tls"]);
    assert!(
        refused.contains("\"tls\"") && refused.contains("jwt-rs256"),
        "{refused}"
    );
    let table = issuer.run(&["authority", "list"]);
    assert!(
        table.contains("leaves at") && table.contains("successor at"),
        "{table}"
    );

    let without = Issuer::start();
    let refused = without.fails(&["authority", "rotate", "--use", "wit"]);
    assert!(refused.contains("\"wit\""), "{refused}");
}

#[test]
fn agents_of_many_rotations_ago_are_served_as_long_as_their_ca_is_left() {
    let issuer = Issuer::start();
    let mut pins = vec![issuer.pin.clone()];
    let bots: Vec<_> = block_on(async {
        let mut bots = Vec::new();
        for round in 0..3 {
            bots.push(Arc::new(issuer.joined(&format!("app-{round}")).await));
            issuer.run(&["authority", "rotate", "--use", "x509", "--now"]);
            pins.push(
                issuer.json(&["status"])["ca_pin"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        bots
    });
    block_on(async {
        for (round, bot) in bots.iter().enumerate() {
            issuer.issue(bot, &format!("app-{round}")).await.unwrap();
        }
        for pin in &pins {
            assert!(pin_is_accepted(&issuer, pin).await, "{pin}");
        }
    });
}

#[test]
fn a_ca_that_others_know_is_withdrawn_at_once_by_order() {
    let issuer = Issuer::start();
    let withdraw = |key: &Value, more: &[&str]| {
        let key_id = key["key_id"].as_str().unwrap();
        issuer.output(&[&["authority", "withdraw", key_id][..], more].concat())
    };
    let refused = |key: &Value, why: &str| {
        let told = one_line_failure(&withdraw(key, &[]));
        assert!(told.contains(why), "{told}");
    };
    let leaked = keys(&issuer, "x509", "active").remove(0);
    refused(&leaked, "rotate --use x509 --now");
    refused(&serde_json::json!({ "key_id": "00" }), "authority list");

    block_on(async {
        let bot = issuer.joined("app").await;
        let late = issuer.joined("late").await;
        // A connection of before, as a thief may hold one open.
        let mut old = IssueServiceClient::new(issuer.as_bot(&late).await);
        let mut ask = async || {
            let key = csr(&KeyPair::generate().unwrap());
            the_svid(old.issue_svids(x509("late", &key, None)).await)
        };
        ask().await.unwrap();

        issuer.run(&["authority", "rotate", "--use", "x509,audit", "--now"]);
        refused(&keys(&issuer, "audit", "retired")[0], "audit key");
        let key = KeyPair::generate().unwrap();
        let renewed = issuer.renew(&bot, &key).await.unwrap();
        let bot = bot.renewed(key, renewed);
        refused(&leaked, "1 bot instances have not renewed");
        ask().await.unwrap();

        let before = issuer.run(&["bundle", "-o", "spiffe"]);
        let done = withdraw(&leaked, &["--force"]);
        assert!(done.status.success(), "{done:?}");
        assert!(keys(&issuer, "x509", "retired").is_empty());
        let removed = issuer.last_event("authority.remove");
        assert_eq!(removed["fields"]["ca_pin"], leaked["ca_pin"]);
        let user = removed["fields"]["user"].as_str().unwrap();
        assert!(user.starts_with("uid:"), "{removed}");

        let read = |text: &str| {
            let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
            TrustBundle::from_spiffe_json(trust_domain, text.as_bytes()).unwrap()
        };
        let (before, after) = (
            read(&before),
            read(&issuer.run(&["bundle", "-o", "spiffe"])),
        );
        assert_eq!(after.x509_authorities().len(), 1);
        assert!(after.sequence() > before.sequence());

        // The open connection ends; a new one is not accepted; who renewed goes on.
        assert!(ask().await.is_err());
        issuer
            .log
            .wait_for("the CA of its certificate was withdrawn");
        let bundle = Wire {
            spiffe_bundle_json: issuer.run(&["bundle", "-o", "spiffe"]).into_bytes(),
            ..bot.bundle.clone()
        };
        let (late, bot) = (late.trusting(&bundle), bot.trusting(&bundle));
        assert!(issuer.issue(&late, "late").await.is_err());
        issuer.issue(&bot, "app").await.unwrap();
    });
}

#[test]
fn ca_ttl_is_bounded() {
    for bad in ["29s", "3651d", "1.5h", "soon"] {
        let mut command = super::harness::serve_command(std::path::Path::new("/nonexistent"));
        let output = command.args(["--ca-ttl", bad]).output().unwrap();
        let told = one_line_failure(&output);
        assert!(told.contains(bad), "{told}");
    }
}
