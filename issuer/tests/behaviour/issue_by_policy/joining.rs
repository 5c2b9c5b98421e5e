//! One call that joins and issues; the bundles of partners.

use identity::{TrustBundle, TrustDomain};
use proto::{
    issue::v1::{JoinAndIssueRequest, issue_service_client::IssueServiceClient},
    join::v1::{JoinRequest, TokenEvidence, join_request::Evidence},
};
use rcgen::KeyPair;
use serde_json::json;
use tonic::Code;

use super::{RESOURCES, by_name, good, issued, jwt, one, world, x509};
use crate::behaviour::harness::{Issuer, block_on, csr};

#[test]
fn one_call_joins_and_issues_both_or_neither() {
    block_on(async {
        let issuer = Issuer::start();
        issuer.apply(RESOURCES);
        let token = issuer.token("web");
        let key = csr(&KeyPair::generate().unwrap());
        let request = |token: &str, csr_der: Vec<u8>| JoinAndIssueRequest {
            join: Some(JoinRequest {
                csr_der,
                evidence: Some(Evidence::Token(TokenEvidence {
                    token: token.to_owned(),
                })),
                agent: None,
            }),
            requests: vec![
                by_name("plain", x509(1), json!({})),
                by_name("web", jwt(&["db"]), good()),
                by_name("other", x509(1), json!({})),
            ],
        };
        let mut client = IssueServiceClient::new(issuer.anonymous().await);
        // Refused: nothing is issued.
        let status = client
            .join_and_issue(request(&"0".repeat(64), key.clone()))
            .await;
        assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
        assert!(issued(&issuer).is_empty());

        let answer = client
            .join_and_issue(request(&token, key.clone()))
            .await
            .unwrap()
            .into_inner();
        let certificate = answer.join.unwrap().certificate.unwrap();
        let granted: Vec<_> = answer
            .results
            .iter()
            .map(|result| result.svids.len())
            .collect();
        assert_eq!(granted, [1, 1, 0]);
        let events = issued(&issuer);
        assert_eq!(events.len(), 3);
        for event in &events {
            assert_eq!(
                event["fields"]["bot_instance_id"],
                certificate.instance_id.as_str()
            );
        }
        // The answer was lost: the same key gets the same instance, and SVIDs again.
        let again = client
            .join_and_issue(request(&token, key))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            again.join.unwrap().certificate.unwrap().instance_id,
            certificate.instance_id
        );
        assert_eq!(again.results[0].svids.len(), 1);

        // Without a key: SVIDs, but no bot; once.
        let token = issuer.token("web");
        let keyless = client
            .join_and_issue(request(&token, Vec::new()))
            .await
            .unwrap()
            .into_inner();
        assert!(keyless.join.unwrap().certificate.is_none());
        assert_eq!(keyless.results[1].svids.len(), 1);
        let status = client
            .join_and_issue(request(&token, Vec::new()))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(
            issuer.last_event("bot.join")["fields"]["reason"],
            "used_token"
        );
    });
}

#[test]
fn fe_07_bundles_of_partners_are_told_apart_and_taken_away() {
    use proto::issue::v1::WatchRequest;
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let partner = Issuer::start_with(&["--trust-domain", "partner.example"]);
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let mut news = client.watch(WatchRequest {}).await.unwrap().into_inner();
        assert_eq!(
            news.message().await.unwrap().unwrap().trust_bundles.len(),
            1
        );
        let ca = partner.joined("app").await.bundle;
        federate(&issuer, &ca);
        let told = news.message().await.unwrap().unwrap().trust_bundles;
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].trust_domain, "test.example");
        assert_eq!(told[0].spiffe_bundle_json, bot.bundle.spiffe_bundle_json);
        assert_eq!(told[1].trust_domain, "partner.example");
        let of = |wire: &proto::join::v1::TrustBundle| {
            let trust_domain = TrustDomain::parse(&wire.trust_domain).unwrap();
            TrustBundle::from_spiffe_json(trust_domain, &wire.spiffe_bundle_json).unwrap()
        };
        assert_eq!(of(&told[1]).x509_authorities(), of(&ca).x509_authorities());

        // What names it gets it, once it is there.
        let result = one(&issuer, &bot, by_name("abroad", x509(1), json!({}))).await;
        assert_eq!(
            result.svids[0].federates_with,
            ["partner.example"],
            "{result:?}"
        );
        let event = issued(&issuer).pop().unwrap();
        assert_eq!(
            event["fields"]["federates_with"],
            json!(["partner.example"])
        );
        // FE-24.
        issuer.run(&["delete", "spiffe_federation/partner.example"]);
        assert_eq!(
            news.message().await.unwrap().unwrap().trust_bundles.len(),
            1
        );
    });
}

fn federate(issuer: &Issuer, bundle: &proto::join::v1::TrustBundle) {
    let text = String::from_utf8(bundle.spiffe_bundle_json.clone()).unwrap();
    let text = text.replace('\'', "''");
    issuer.apply(&format!(
        "kind: spiffe_federation\nversion: v1\nmetadata: {{ name: {} }}\n\
         spec: {{ bundle_source: {{ static: {{ bundle: '{text}' }} }} }}\n",
        bundle.trust_domain
    ));
}
