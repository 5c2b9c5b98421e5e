//! Roles, rules, templates and locks decide what is issued; every refusal has exactly
//! one event that names its reason, and every grant one that tells what led to it.

use std::{collections::BTreeMap, time::SystemTime};

use identity::{JwtSvid, Leeway, TrustBundle, TrustBundleSet, TrustDomain, UnprovenWit};
use proto::issue::v1::{
    JoinAndIssueRequest, JwtRequest, LabelSelector, LabelSelectors, SvidRequest, SvidResult,
    WitRequest, X509Request, issue_service_client::IssueServiceClient, svid::Document,
    svid_request::Document as Wanted, svid_request::Selector,
};
use proto::join::v1::{JoinRequest, TokenEvidence, join_request::Evidence};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tonic::Code;

use super::harness::{Bot, Issuer, attributes, block_on, chain, csr, time};

const RESOURCES: &str = "
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

async fn world(more: &[&str]) -> (Issuer, Bot) {
    let issuer = Issuer::start_with(more);
    issuer.apply(RESOURCES);
    let bot = issuer.join(&issuer.token("web")).await.unwrap();
    (issuer, bot)
}

fn good() -> Value {
    json!({
        "unix": { "uid": 1000, "binary_path": "web" },
        "kubernetes": { "pod_name": "web-1" },
    })
}

fn by_name(name: &str, document: Wanted, workload: Value) -> SvidRequest {
    SvidRequest {
        selector: Some(Selector::Name(name.to_owned())),
        document: Some(document),
        ttl: None,
        workload_attributes: Some(attributes(&workload)),
    }
}

fn by_labels(labels: &[(&str, &str)], after: &str, document: Wanted) -> SvidRequest {
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
    }
}

fn x509(keys: usize) -> Wanted {
    let csrs = (0..keys).map(|_| csr(&KeyPair::generate().unwrap()));
    Wanted::X509(X509Request {
        csrs_der: csrs.collect(),
    })
}

fn jwt(audiences: &[&str]) -> Wanted {
    Wanted::Jwt(JwtRequest {
        audiences: audiences.iter().map(ToString::to_string).collect(),
    })
}

async fn one(issuer: &Issuer, bot: &Bot, request: SvidRequest) -> SvidResult {
    let mut results = issuer.issue_all(bot, vec![request]).await.unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn issued(issuer: &Issuer) -> Vec<Value> {
    let events = issuer.audit().into_iter();
    events
        .filter(|event| event["event"] == "spiffe.svid.issued")
        // The issuer records its own SVID, too.
        .filter(|event| event["fields"]["bot_name"].is_string())
        .collect()
}

#[test]
fn every_refusal_has_one_event_that_names_its_reason() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let shared = csr(&KeyPair::generate().unwrap());
        let mut short = by_name("plain", x509(1), json!({}));
        short.ttl = Some(prost_types::Duration::default());
        let mut nothing = by_name("plain", x509(1), json!({}));
        nothing.document = None;
        let mut nobody = by_name("plain", x509(1), json!({}));
        nobody.selector = None;
        let with = |path: &str, value: Value| {
            let mut workload = good();
            *workload.pointer_mut(path).unwrap() = value;
            workload
        };
        let long = json!({ "unix": { "binary_path": "a".repeat(70_000) } });
        let cases = [
            (
                by_name("none", x509(1), json!({})),
                "unknown_workload_identity",
                Code::PermissionDenied,
            ),
            (
                by_name("other", x509(1), json!({})),
                "no_role",
                Code::PermissionDenied,
            ),
            (
                by_name("denied", x509(1), json!({})),
                "role_denies",
                Code::PermissionDenied,
            ),
            (
                by_name("web", x509(1), with("/unix/uid", json!(1001))),
                "no_rule",
                Code::PermissionDenied,
            ),
            (
                by_name("web", x509(1), with("/kubernetes/pod_name", json!("debug"))),
                "rule_denies",
                Code::PermissionDenied,
            ),
            (
                by_name("user", x509(1), json!({})),
                "template",
                Code::PermissionDenied,
            ),
            (
                by_name("user", x509(1), json!({ "unix": { "binary_path": "bot" } })),
                "invalid_id",
                Code::PermissionDenied,
            ),
            (
                by_name("abroad", x509(1), json!({})),
                "unknown_federation",
                Code::PermissionDenied,
            ),
            (
                by_name("plain", x509(0), json!({})),
                "invalid_csr",
                Code::InvalidArgument,
            ),
            (
                by_name("plain", x509(2), json!({})),
                "invalid_csr",
                Code::InvalidArgument,
            ),
            (
                by_name(
                    "plain",
                    Wanted::X509(X509Request {
                        csrs_der: vec![vec![0; 40]],
                    }),
                    json!({}),
                ),
                "invalid_csr",
                Code::InvalidArgument,
            ),
            (
                by_name("plain", jwt(&[]), json!({})),
                "invalid_audience",
                Code::InvalidArgument,
            ),
            (
                by_name("plain", jwt(&["a", ""]), json!({})),
                "invalid_audience",
                Code::InvalidArgument,
            ),
            (
                by_name(
                    "plain",
                    Wanted::Wit(WitRequest {
                        csrs_der: vec![shared],
                    }),
                    json!({}),
                ),
                "wit_off",
                Code::Unimplemented,
            ),
            (short, "invalid_ttl", Code::InvalidArgument),
            (nothing, "invalid_request", Code::InvalidArgument),
            (nobody, "invalid_request", Code::InvalidArgument),
            (
                by_name("plain", x509(1), long),
                "invalid_request",
                Code::InvalidArgument,
            ),
            (
                by_labels(&[], "", x509(1)),
                "invalid_request",
                Code::InvalidArgument,
            ),
            (
                by_labels(&[("*", "web")], "", x509(1)),
                "invalid_request",
                Code::InvalidArgument,
            ),
        ];
        for (request, reason, code) in cases {
            let before = issued(&issuer).len();
            let result = one(&issuer, &bot, request).await;
            assert!(result.svids.is_empty(), "{reason}");
            let refusal = result.refusal.unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(
                Code::from(refusal.code),
                code,
                "{reason}: {}",
                refusal.message
            );
            let events = issued(&issuer);
            assert_eq!(events.len(), before + 1, "{reason}");
            let event = events.last().unwrap();
            assert_eq!(event["success"], false);
            assert_eq!(event["fields"]["reason"], reason, "{event}");
            assert_eq!(event["fields"]["bot_name"], "web");
            assert!(event["fields"]["error"].is_string(), "{event}");
        }
        // A batch too long is refused as a whole.
        let many = vec![by_name("plain", jwt(&["a"]), json!({})); 1001];
        let status = issuer.issue_all(&bot, many).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let event = issued(&issuer).pop().unwrap();
        assert_eq!(event["fields"]["reason"], "invalid_request", "{event}");
    });
}

#[test]
fn a_lock_on_whatever_it_is_refuses_from_then_on_and_until_it_goes() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let token = issuer.last_event("bot.join")["fields"]["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let instance = bot.certificate.instance_id.clone();
        for (target, reason) in [
            ("bot: web".to_owned(), "locked"),
            (format!("bot_instance_id: {instance}"), "locked"),
            (format!("join_token: {token}"), "locked"),
            ("role: web".to_owned(), "locked_identity"),
            ("workload_identity: plain".to_owned(), "locked_identity"),
            (
                "spiffe_id: 'spiffe://test.example/plain'".to_owned(),
                "locked_identity",
            ),
        ] {
            issuer.issue(&bot, "plain").await.unwrap();
            issuer.apply(&format!(
                "kind: lock\nversion: v1\nmetadata: {{ name: test }}\n\
                 spec: {{ target: {{ {target} }}, message: under investigation }}\n"
            ));
            let before = issued(&issuer).len();
            let status = issuer.issue(&bot, "plain").await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{target}");
            assert!(!status.message().contains("investigation"), "{status}");
            let events = issued(&issuer);
            assert_eq!(events.len(), before + 1);
            let fields = &events.last().unwrap()["fields"];
            assert_eq!(fields["reason"], reason, "{target}");
            let error = fields["error"].as_str().unwrap();
            assert!(error.contains("under investigation"), "{error}");
            issuer.run(&["delete", "lock/test"]);
        }
        issuer.issue(&bot, "plain").await.unwrap();
    });
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

#[test]
fn labels_select_every_one_that_may_be_had_page_by_page_each_under_a_key_of_its_own() {
    block_on(async {
        let issuer = Issuer::start();
        let mut yaml = String::from(
            "kind: role\nversion: v1\nmetadata: { name: fleet }\n\
             spec: { allow: { workload_identity_labels: { may: ['yes'] } } }\n",
        );
        for number in 0..1000 {
            let (may, rules) = match number % 10 {
                0 => ("no", ""),
                1 => (
                    "yes",
                    ", rules: { allow: [{ expression: \"user.bot_name == 'nobody'\" }] }",
                ),
                _ => ("yes", ""),
            };
            yaml.push_str(&format!(
                "---\nkind: workload_identity\nversion: v1\n\
                 metadata: {{ name: w{number:04}, labels: {{ may: '{may}', set: big }} }}\n\
                 spec: {{ spiffe: {{ id: /w/{number:04} }}{rules} }}\n"
            ));
        }
        issuer.apply(&yaml);
        let bot = issuer.join(&issuer.token("fleet")).await.unwrap();

        // Without keys: how many there may be.
        let asked = one(&issuer, &bot, by_labels(&[("set", "big")], "", x509(0))).await;
        assert!(
            asked.svids.is_empty() && asked.refusal.is_none(),
            "{asked:?}"
        );
        assert_eq!(asked.remaining, 900);

        let (mut after, mut ids, mut serials) = (String::new(), Vec::new(), BTreeMap::new());
        let mut pages = 0;
        loop {
            let keys = 300;
            let page = one(
                &issuer,
                &bot,
                by_labels(&[("set", "big")], &after, x509(keys)),
            )
            .await;
            assert!(page.refusal.is_none(), "{:?}", page.refusal);
            let mut used = Vec::new();
            for svid in &page.svids {
                let Some(Document::X509(x509)) = &svid.document else {
                    panic!("{svid:?}");
                };
                used.push(x509.csr);
                ids.push(svid.spiffe_id.clone());
                let leaf = &chain(svid)[0];
                let (_, leaf) = x509_parser::parse_x509_certificate(leaf).unwrap();
                let key = leaf.public_key().raw.to_vec();
                assert!(serials.insert(key, x509.serial_number.clone()).is_none());
            }
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), page.svids.len(), "a key was used twice");
            pages += 1;
            if page.remaining == 0 {
                break;
            }
            assert!(page.next_after > after);
            after = page.next_after;
        }
        assert_eq!(pages, 3);
        assert_eq!(ids.len(), 800);
        assert!(ids.is_sorted());
        // Of JWTs as many as fit one answer: no keys are needed.
        let tokens = one(
            &issuer,
            &bot,
            by_labels(&[("set", "big")], "", jwt(&["db"])),
        )
        .await;
        assert_eq!(tokens.svids.len(), 800);
        assert_eq!(tokens.remaining, 0);
        let events = issued(&issuer);
        let granted = events.iter().filter(|event| event["success"] == true);
        assert_eq!(granted.count(), 1600);
        // What the rules left out is one event a page, with names and reasons.
        let left_out: Vec<_> = events
            .iter()
            .filter(|event| event["success"] == false)
            .collect();
        let counted: u64 = left_out
            .iter()
            .map(|event| event["fields"]["left_out"].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 200);
        assert_eq!(left_out[0]["fields"]["reason"], "no_rule");
        assert_eq!(
            left_out[0]["fields"]["workload_identities"][0]["workload_identity"],
            "w0001"
        );
        assert_eq!(left_out[0]["fields"]["label_selectors"][0]["key"], "set");

        // Nothing selected: an empty answer, and an event.
        let nothing = one(&issuer, &bot, by_labels(&[("set", "none")], "", x509(1))).await;
        assert!(nothing.svids.is_empty() && nothing.refusal.is_none());
        assert_eq!(
            issued(&issuer).pop().unwrap()["fields"]["reason"],
            "no_role"
        );
    });
}

#[test]
fn no_two_svids_of_a_batch_share_a_key() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let shared = csr(&KeyPair::generate().unwrap());
        let keyed = || {
            Wanted::X509(X509Request {
                csrs_der: vec![shared.clone()],
            })
        };
        let twice = Wanted::X509(X509Request {
            csrs_der: vec![shared.clone(), shared.clone()],
        });
        let results = issuer
            .issue_all(
                &bot,
                vec![
                    by_name("plain", keyed(), json!({})),
                    by_name("plain", keyed(), json!({})),
                    by_labels(&[("app", "web")], "", twice),
                    by_name("plain", x509(1), json!({})),
                ],
            )
            .await
            .unwrap();
        let granted: Vec<_> = results.iter().map(|result| result.svids.len()).collect();
        assert_eq!(granted, [1, 0, 0, 1]);
        for refused in [&results[1], &results[2]] {
            let refusal = refused.refusal.as_ref().unwrap();
            assert!(refusal.message.contains("key of its own"), "{refusal:?}");
        }
    });
}

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
