//! JWT- and WIT-SVIDs as their validators see them.

use std::time::SystemTime;

use identity::{JwtSvid, Leeway, TrustBundle, TrustBundleSet, TrustDomain, UnprovenWit};
use proto::issue::v1::{WitRequest, svid::Document, svid_request::Document as Wanted};
use rcgen::KeyPair;
use serde_json::json;

use super::{by_name, jwt, one, world};
use crate::behaviour::harness::{Bot, block_on, csr};

fn bundles(bot: &Bot) -> TrustBundleSet {
    let trust_domain = TrustDomain::parse(&bot.bundle.trust_domain).unwrap();
    let json = &bot.bundle.spiffe_bundle_json;
    TrustBundleSet::new([TrustBundle::from_spiffe_json(trust_domain, json).unwrap()])
}

#[test]
fn jw_01_jw_08_jw_12_tokens_are_valid_for_their_audience_and_live_no_longer_than_granted() {
    block_on(async {
        let (issuer, bot) = world(&["--wit"]).await;
        issuer.apply(
            "kind: workload_identity\nversion: v1\nmetadata: { name: rsa, labels: { app: web } }\n\
             spec: { spiffe: { id: /rsa, jwt: { algorithm: RS256, maximum_ttl: 2m } } }\n",
        );
        let bundles = bundles(&bot);
        let mut ids = Vec::new();
        for (name, wanted, granted) in [
            ("plain", None, 300),
            ("rsa", None, 120),
            ("plain", Some(60), 60),
            ("rsa", Some(3600), 120),
        ] {
            let mut request = by_name(name, jwt(&["db"]), json!({}));
            request.ttl = wanted.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            let result = one(&issuer, &bot, request).await;
            assert!(result.refusal.is_none(), "{name}: {result:?}");
            let svid = &result.svids[0];
            assert_eq!(svid.ttl.unwrap().seconds, granted, "{name}");
            let Some(Document::Jwt(token)) = &svid.document else {
                panic!("{svid:?}");
            };
            let now = SystemTime::now();
            let leeway = Leeway::default();
            let valid = JwtSvid::validate(&token.token, "db", &bundles, now, leeway).unwrap();
            assert_eq!(valid.id().as_str(), svid.spiffe_id);
            assert_eq!(valid.claims()["jti"], token.jti.as_str());
            assert!(valid.claims().get("iss").is_none());
            let other = JwtSvid::validate(&token.token, "cache", &bundles, now, leeway);
            assert!(other.is_err(), "of another audience");
            let late = now + std::time::Duration::from_secs(granted as u64 + 61);
            let late = JwtSvid::validate(&token.token, "db", &bundles, late, leeway);
            assert!(late.is_err(), "outlived");
            ids.push(token.jti.clone());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4);

        let key = csr(&KeyPair::generate().unwrap());
        let wit = Wanted::Wit(WitRequest {
            csrs_der: vec![key],
        });
        let result = one(&issuer, &bot, by_name("plain", wit, json!({}))).await;
        let Some(Document::Wit(token)) = &result.svids[0].document else {
            panic!("{result:?}");
        };
        UnprovenWit::validate(&token.token, &bundles, SystemTime::now(), Leeway::default())
            .unwrap();
        // A WIT-SVID is no JWT-SVID.
        let confused = JwtSvid::validate(
            &token.token,
            "db",
            &bundles,
            SystemTime::now(),
            Leeway::default(),
        );
        assert!(confused.is_err());
    });
}
