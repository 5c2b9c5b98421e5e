use std::sync::Arc;

use policy::Attributes;
use serde_json::{Value, json};

use super::{granted, left_out, refused, refused_item, size_of};
use crate::{
    access::{Denial, Refused},
    audit::Event,
    catalog::Catalog,
    issue::{
        Ask, Decision, Wanted, decide,
        sign::sign,
        testing::{ask, asker, catalog, keyring, moment},
    },
    resources::{LabelSelector, SvidKind},
};

const RESOURCES: &str = "
kind: role
version: v1
metadata: { name: web }
spec: { allow: { workload_identity_labels: { app: [web] } } }
---
kind: bot
version: v1
metadata: { name: web, labels: { site: north } }
spec: { roles: [web] }
---
kind: workload_identity
version: v1
metadata: { name: web, labels: { app: web } }
spec:
  spiffe: { id: '/web/{{ workload.unix.uid }}', hint: main, jwt: { extra_claims: { level: 3 } } }
  rules:
    allow: [{ description: not root, expression: 'has(workload.unix.uid) && workload.unix.uid != 0' }]
";

fn decided(catalog: &Catalog, ask: &Ask) -> Decision {
    decide(catalog, &keyring(), &asker(), ask, moment(), &mut ())
}

fn fields(event: &Event) -> Value {
    serde_json::from_str(&event.fields_json()).unwrap()
}

#[test]
fn a_grant_is_told_with_all_that_led_to_it_and_without_the_token() {
    let catalog = catalog(RESOURCES);
    let ask = ask(&json!({ "workload": { "unix": { "uid": 1000 } } }));
    let decision = decided(&catalog, &ask);
    let approved = decision.verdict.as_ref().unwrap();
    let document = sign(&keyring(), None, approved).unwrap();
    let event = granted(&asker(), &ask, &decision, approved, &document);
    assert!(event.is_success());
    let told = fields(&event);
    for (field, value) in [
        ("spiffe_id", json!("spiffe://test.example/web/1000")),
        ("bot_name", json!("web")),
        ("workload_identity", json!("web")),
        ("workload_identity_revision", json!(1)),
        ("name_selector", json!("web")),
        ("role", json!("web")),
        ("rule", json!("allow[0]")),
        ("rule_description", json!("not root")),
        ("svid_type", json!("jwt")),
        ("audiences", json!(["db"])),
        ("algorithm", json!("ES256")),
        ("extra_claims", json!({ "level": 3 })),
        ("hint", json!("main")),
        ("ttl_seconds", json!(300)),
        ("attributes_asserted", json!(["workload.unix.uid"])),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(told["attributes"]["user"]["labels"]["site"], "north");
    let crate::issue::Document::Jwt { token, jti, .. } = &document else {
        panic!("{document:?}");
    };
    assert_eq!(told["jti"], jti.as_str());
    for secret in token.split('.') {
        assert!(!event.fields_json().contains(secret));
    }
    assert!(!format!("{document:?}").contains(token.as_str()));
}

#[test]
fn a_refusal_is_told_with_its_reason_and_no_more_of_a_foreign_text_than_helps() {
    let catalog = catalog(RESOURCES);
    let mut ask = ask(&json!({ "workload": { "unix": { "uid": 0 } } }));
    let decision = decided(&catalog, &ask);
    let told = fields(&refused(
        &asker(),
        &ask,
        &decision,
        decision.verdict.as_ref().unwrap_err(),
    ));
    assert_eq!(told["reason"], "no_rule");
    assert_eq!(told["role"], "web");
    assert_eq!(told["rule"], Value::Null, "none decided");
    assert_eq!(told["attributes"]["workload"]["unix"]["uid"], 0);

    ask.workload_identity = "é".repeat(500);
    ask.wanted = Wanted::Jwt(vec!["a".repeat(5000); 100].into());
    let decision = decided(&catalog, &ask);
    let event = refused(
        &asker(),
        &ask,
        &decision,
        decision.verdict.as_ref().unwrap_err(),
    );
    let told = fields(&event);
    assert_eq!(told["reason"], "unknown_workload_identity");
    assert_eq!(told["workload_identity"], "é".repeat(64));
    assert_eq!(told["audiences"].as_array().unwrap().len(), 32);
    assert!(event.fields_json().len() < 8192);
    assert_eq!(told["workload_identity_revision"], Value::Null);
}

#[test]
fn what_labels_left_out_is_one_event_with_counts_and_some_names() {
    let selector = LabelSelector::new([("app".to_owned(), vec!["web".to_owned()])]).unwrap();
    let many: Vec<_> = (0..100)
        .map(|number| {
            let denial = match number % 2 {
                0 => Denial::NoRule,
                _ => Denial::Template,
            };
            (format!("w{number}"), Refused::new(denial, "x".repeat(1000)))
        })
        .collect();
    let event = left_out(&asker(), &selector, SvidKind::X509, &many);
    let told = fields(&event);
    assert_eq!(told["reason"], "no_rule", "of the first");
    assert_eq!(told["left_out"], 100);
    assert_eq!(told["reasons"], json!({ "no_rule": 50, "template": 50 }));
    let named = told["workload_identities"].as_array().unwrap();
    assert_eq!(named.len(), 32);
    assert_eq!(named[1]["workload_identity"], "w1");
    assert_eq!(named[1]["reason"], "template");
    assert!(event.fields_json().len() < 16 * 1024);
}

#[test]
fn what_was_no_request_is_told_all_the_same() {
    let why = Refused::new(Denial::InvalidRequest, "it names no kind\u{1b}[2J");
    let told = fields(&refused_item(&asker(), None, &why));
    assert_eq!(
        told,
        json!({ "bot_name": "web", "error": "it names no kind[2J", "reason": "invalid_request" })
    );
}

#[test]
fn what_an_event_will_hold_of_a_request_is_counted() {
    let mut ask = ask(&json!({}));
    let least = size_of(&ask, &Attributes::new());
    ask.wanted = Wanted::Jwt(["a".repeat(1000)].into());
    assert!(size_of(&ask, &Attributes::new()) > least + 900);
    let values = vec!["v".repeat(256); 64];
    let selector = LabelSelector::new([("app".to_owned(), values)]).unwrap();
    ask.labels = Some(Arc::new(selector));
    assert!(size_of(&ask, &Attributes::new()) > 16_000);
}
