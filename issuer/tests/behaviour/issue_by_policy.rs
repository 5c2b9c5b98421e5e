//! Roles, rules, templates and locks decide what is issued; every refusal has exactly
//! one event that names its reason, and every grant one that tells what led to it.

mod joining;
mod labels;
mod refusals;
mod tokens;

use proto::issue::v1::{
    JwtRequest, LabelSelector, LabelSelectors, SvidRequest, SvidResult, X509Request,
    svid::Document, svid_request::Document as Wanted, svid_request::Selector,
};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::harness::{Bot, Issuer, attributes, block_on, csr, time};

pub(super) const RESOURCES: &str = "
kind: role
version: v1
metadata: { name: web }
spec:
  allow: { workload_identity_labels: { app: [web] } }
  deny: { workload_identity_labels: { secret: ['yes'] } }
---
kind: workload_identity
version: v1
metadata: { name: web, labels: { app: web } }
spec:
  spiffe:
    id: /apps/{{ workload.unix.binary_path }}
    hint: 'uid {{ workload.unix.uid }}'
    x509:
      dns_sans: ['{{ workload.kubernetes.pod_name }}.example.org']
      ip_sans: [192.0.2.7]
      subject_template: { common_name: '{{ workload.kubernetes.pod_name }}', organization: Example }
    jwt: { extra_claims: { team: '{{ user.traits.team[0] }}', level: 3 } }
  rules:
    allow:
      - description: only uid 1000
        expression: has(workload.unix.uid) && workload.unix.uid == 1000
    deny:
      - description: not the debug pod
        conditions: [{ attribute: workload.kubernetes.pod_name, eq: { value: debug } }]
---
kind: workload_identity
version: v1
metadata: { name: plain, labels: { app: web } }
spec: { spiffe: { id: /plain } }
---
kind: workload_identity
version: v1
metadata: { name: denied, labels: { app: web, secret: 'yes' } }
spec: { spiffe: { id: /denied } }
---
kind: workload_identity
version: v1
metadata: { name: other, labels: { app: other } }
spec: { spiffe: { id: /other } }
---
kind: workload_identity
version: v1
metadata: { name: user, labels: { app: web } }
spec: { spiffe: { id: '/{{ workload.unix.binary_path }}/x' } }
---
kind: workload_identity
version: v1
metadata: { name: abroad, labels: { app: web } }
spec: { spiffe: { id: /abroad, federates_with: [partner.example] } }
---
kind: bot
version: v1
metadata: { name: web, labels: { site: north } }
spec: { roles: [web], traits: [{ name: team, values: [payments] }] }
";

pub(super) async fn world(more: &[&str]) -> (Issuer, Bot) {
    let issuer = Issuer::start_with(more);
    issuer.apply(RESOURCES);
    let bot = issuer.join(&issuer.token("web")).await.unwrap();
    (issuer, bot)
}

pub(super) fn good() -> Value {
    json!({
        "unix": { "uid": 1000, "binary_path": "web" },
        "kubernetes": { "pod_name": "web-1" },
    })
}

pub(super) fn by_name(name: &str, document: Wanted, workload: Value) -> SvidRequest {
    SvidRequest {
        selector: Some(Selector::Name(name.to_owned())),
        document: Some(document),
        ttl: None,
        workload_attributes: Some(attributes(&workload)),
        image_signatures: Vec::new(),
    }
}

pub(super) fn by_labels(labels: &[(&str, &str)], after: &str, document: Wanted) -> SvidRequest {
    let selectors = labels.iter().map(|(key, value)| LabelSelector {
        key: (*key).to_owned(),
        values: vec![(*value).to_owned()],
    });
    SvidRequest {
        selector: Some(Selector::Labels(LabelSelectors {
            selectors: selectors.collect(),
            after: after.to_owned(),
        })),
        document: Some(document),
        ttl: None,
        workload_attributes: None,
        image_signatures: Vec::new(),
    }
}

pub(super) fn x509(keys: usize) -> Wanted {
    let csrs = (0..keys).map(|_| csr(&KeyPair::generate().unwrap()));
    Wanted::X509(X509Request {
        csrs_der: csrs.collect(),
    })
}

pub(super) fn jwt(audiences: &[&str]) -> Wanted {
    Wanted::Jwt(JwtRequest {
        audiences: audiences.iter().map(ToString::to_string).collect(),
    })
}

pub(super) async fn one(issuer: &Issuer, bot: &Bot, request: SvidRequest) -> SvidResult {
    let mut results = issuer.issue_all(bot, vec![request]).await.unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

pub(super) fn issued(issuer: &Issuer) -> Vec<Value> {
    let events = issuer.audit().into_iter();
    events
        .filter(|event| event["event"] == "spiffe.svid.issued")
        // The issuer records its own SVID, too.
        .filter(|event| event["fields"]["bot_name"].is_string())
        .collect()
}

#[test]
fn a_grant_is_recorded_with_all_that_led_to_it() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let workload = json!({
            "unix": { "uid": 1000, "binary_path": "web", "gid": "not a number" },
            "kubernetes": { "pod_name": "web-1" },
            "future": { "attestor": true },
        });
        let result = one(&issuer, &bot, by_name("web", x509(1), workload.clone())).await;
        assert!(result.refusal.is_none(), "{result:?}");
        let svid = &result.svids[0];
        assert_eq!(svid.spiffe_id, "spiffe://test.example/apps/web");
        assert_eq!(svid.hint, "uid 1000");
        assert_eq!(svid.workload_identity, "web");
        let left = time(svid.not_after)
            .duration_since(time(svid.renew_at))
            .unwrap();
        assert!((1799..=1801).contains(&left.as_secs()), "{left:?}");
        let event = issued(&issuer).pop().unwrap();
        let fields = &event["fields"];
        for (field, value) in [
            ("spiffe_id", json!("spiffe://test.example/apps/web")),
            ("svid_type", json!("x509")),
            ("workload_identity", json!("web")),
            ("workload_identity_revision", json!(1)),
            ("name_selector", json!("web")),
            ("role", json!("web")),
            ("rule", json!("allow[0]")),
            ("rule_description", json!("only uid 1000")),
            ("hint", json!("uid 1000")),
            ("ttl_seconds", json!(3600)),
            ("dns_sans", json!(["web-1.example.org"])),
            ("ip_sans", json!(["192.0.2.7"])),
            ("subject", json!("CN=web-1, O=Example")),
            ("join_method", json!("token")),
            (
                "attributes_asserted",
                json!([
                    "workload.unix.uid",
                    "workload.unix.binary_path",
                    "workload.kubernetes.pod_name"
                ]),
            ),
        ] {
            assert_eq!(fields[field], value, "{field}: {fields}");
        }
        for field in [
            "serial_number",
            "public_key_sha256",
            "not_before",
            "not_after",
            "renew_at",
            "remote_address",
        ] {
            assert!(fields[field].is_string(), "{field}: {fields}");
        }
        let known = &fields["attributes"];
        assert_eq!(known["join"]["meta"]["join_method"], "token");
        assert_eq!(known["user"]["name"], "bot-web");
        assert_eq!(
            known["user"]["bot_instance_id"],
            bot.certificate.instance_id.as_str()
        );
        assert_eq!(known["user"]["labels"]["site"], "north");
        assert_eq!(known["user"]["traits"]["team"][0], "payments");
        assert_eq!(known["workload"]["unix"]["uid"], 1000);
        // What is not understood is left out.
        assert!(known["workload"]["unix"]["gid"].is_null());
        assert!(known["workload"]["future"].is_null());

        let result = one(
            &issuer,
            &bot,
            by_name("web", jwt(&["db", "cache"]), workload),
        )
        .await;
        let Some(Document::Jwt(token)) = &result.svids[0].document else {
            panic!("{result:?}");
        };
        let event = issued(&issuer).pop().unwrap();
        let fields = &event["fields"];
        for (field, value) in [
            ("jti", json!(token.jti)),
            ("audiences", json!(["db", "cache"])),
            ("algorithm", json!("ES256")),
            ("extra_claims", json!({ "team": "payments", "level": 3 })),
            ("ttl_seconds", json!(300)),
        ] {
            assert_eq!(fields[field], value, "{field}: {fields}");
        }
        assert!(!issuer.run(&["audit", "-o", "json"]).contains(&token.token));
    });
}

#[test]
fn no_value_of_an_attribute_climbs_out_of_its_place() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let long = "a".repeat(2049);
        let almost = "a".repeat(2048 - "spiffe://test.example//x".len());
        for value in [
            "/",
            "a/b",
            "..",
            ".",
            "../bot",
            "%2f",
            "%2F..",
            "a%",
            "é",
            "ａ",
            "\u{202e}",
            "a b",
            "",
            "a\0b",
            "a\nb",
            "bot",
            "issuer",
            "?",
            "#",
            "a:b",
            "*",
            &long,
            &format!("{almost}a"),
        ] {
            let workload = json!({ "unix": { "binary_path": value } });
            let result = one(&issuer, &bot, by_name("user", x509(1), workload)).await;
            assert!(
                result.svids.is_empty(),
                "{value:?} came to {:?}",
                result.svids
            );
            let event = issued(&issuer).pop().unwrap();
            let reason = event["fields"]["reason"].as_str().unwrap();
            assert!(
                ["template", "invalid_id"].contains(&reason),
                "{value:?}: {event}"
            );
        }
        for value in ["a", "A-9._z", "bots", "...", &almost] {
            let workload = json!({ "unix": { "binary_path": value } });
            let result = one(&issuer, &bot, by_name("user", x509(1), workload)).await;
            let id = format!("spiffe://test.example/{value}/x");
            assert_eq!(result.svids[0].spiffe_id, id, "{value:?}: {result:?}");
        }
        // Nor does one become a name or an address that it is not.
        for pod in [
            "*",
            "a b",
            "-",
            "a..b",
            "x,DNS:evil.example",
            &"a".repeat(64),
        ] {
            let mut workload = good();
            workload["kubernetes"]["pod_name"] = json!(pod);
            let result = one(&issuer, &bot, by_name("web", x509(1), workload)).await;
            assert!(result.svids.is_empty(), "{pod:?}: {result:?}");
            assert_eq!(
                issued(&issuer).pop().unwrap()["fields"]["reason"],
                "template",
                "{pod}"
            );
        }
    });
}
