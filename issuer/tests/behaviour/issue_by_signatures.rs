//! A rule asks `sigstore.policy_satisfied(…)`: what an agent sends decides, and the audit
//! trail tells what became of each policy. The signatures are those of
//! `sigstore-policy/tests/fixtures`, where every check has its own tests.

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::issue::v1::{ImageSignature, SvidRequest, SvidResult};
use serde_json::{Value, json};

use super::{
    harness::{Bot, Issuer, block_on},
    issue_by_policy::{by_name, issued, jwt, one},
};

fn fixture(name: &str) -> PathBuf {
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crates.join("../sigstore-policy/tests/fixtures").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap()
}

/// As it stands in YAML below a key.
fn block(text: &str) -> String {
    text.lines().fold(String::from("|\n"), |block, line| {
        block + "          " + line + "\n"
    })
}

fn resources() -> String {
    let facts: Value = serde_json::from_str(&read("facts.json")).unwrap();
    format!(
        "
kind: sigstore_policy
version: v1
metadata: {{ name: release }}
spec:
  keyless:
    identities:
      - issuer: {issuer}
        subject_regex: 'https://github\\.example\\.org/acme/.*'
    trusted_roots:
      - {root}
  requirements: {{ artifact_signature: true }}
---
kind: sigstore_policy
version: v1
metadata: {{ name: built }}
spec:
  key:
    public: {key}
  requirements:
    attestations: [{{ predicate_type: https://slsa.dev/provenance/v1 }}]
---
kind: role
version: v1
metadata: {{ name: web }}
spec: {{ allow: {{ workload_identity_labels: {{ app: [web] }} }} }}
---
kind: bot
version: v1
metadata: {{ name: web }}
spec: {{ roles: [web] }}
---
kind: workload_identity
version: v1
metadata: {{ name: web, labels: {{ app: web }} }}
spec:
  spiffe: {{ id: /web }}
  rules: {{ allow: [{{ expression: 'sigstore.policy_satisfied(\"release\", \"built\")' }}] }}
---
kind: workload_identity
version: v1
metadata: {{ name: lost, labels: {{ app: web }} }}
spec:
  spiffe: {{ id: /lost }}
  rules: {{ allow: [{{ expression: 'sigstore.policy_satisfied(\"nowhere\")' }}] }}
",
        issuer = facts["issuer"].as_str().unwrap(),
        root = block(&read("root.json")),
        key = block(&read("keys/p256.pem")),
    )
}

fn signature(name: &str) -> ImageSignature {
    let json: Value = serde_json::from_str(&read(&format!("payloads/{name}.json"))).unwrap();
    let simple_signing = json["simple_signing"].as_str().unwrap_or_default();
    ImageSignature {
        bundle_json: json["bundle"].to_string().into_bytes(),
        simple_signing: STANDARD.decode(simple_signing).unwrap(),
    }
}

fn image() -> Value {
    let facts: Value = serde_json::from_str(&read("facts.json")).unwrap();
    facts["image"].clone()
}

fn request(identity: &str, image: &Value, signatures: &[&str]) -> SvidRequest {
    // The agent's count and hash are not believed.
    let workload = json!({ "sigstore": {
        "attested": true, "image_digest": image, "signature_count": 7, "signatures_hash": "07",
    } });
    SvidRequest {
        image_signatures: signatures.iter().map(|name| signature(name)).collect(),
        ..by_name(identity, jwt(&["test"]), workload)
    }
}

async fn ask(issuer: &Issuer, bot: &Bot, signatures: &[&str]) -> SvidResult {
    one(issuer, bot, request("web", &image(), signatures)).await
}

const BOTH: [&str; 2] = ["keyless-signature", "key-provenance"];

#[test]
fn a_signed_image_gets_its_identity_and_the_trail_tells_by_which_policies() {
    block_on(async {
        let issuer = Issuer::start();
        issuer.apply(&resources());
        let bot = issuer.join(&issuer.token("web")).await.unwrap();
        let result = ask(&issuer, &bot, &BOTH).await;
        assert!(result.refusal.is_none(), "{result:?}");
        assert_eq!(result.svids[0].spiffe_id, "spiffe://test.example/web");
        let reads = result.reads.unwrap();
        assert_eq!(
            reads.attributes,
            [
                "workload.sigstore.image_digest",
                "workload.sigstore.signatures_hash"
            ]
        );
        let event = issued(&issuer).pop().unwrap();
        let fields = &event["fields"];
        assert_eq!(
            fields["sigstore_policies"],
            json!({ "built": { "satisfied": true }, "release": { "satisfied": true } })
        );
        let told = &fields["attributes"]["workload"]["sigstore"];
        assert_eq!(told["signature_count"], 2);
        assert_eq!(told["signatures_hash"].as_str().unwrap().len(), 64);
        assert!(!event.to_string().contains("dsseEnvelope"), "{event}");
    });
}

#[test]
fn what_is_not_signed_as_demanded_is_refused_with_the_reason() {
    block_on(async {
        let issuer = Issuer::start();
        issuer.apply(&resources());
        let bot = issuer.join(&issuer.token("web")).await.unwrap();
        let other = json!(format!("sha256:{}", "7".repeat(64)));
        let cases = [
            (
                request("web", &image(), &[]),
                "release",
                "nothing that is signed",
            ),
            (
                request("web", &image(), &BOTH[..1]),
                "built",
                "no attestation",
            ),
            (
                request("web", &image(), &BOTH[1..]),
                "release",
                "says something else",
            ),
            (request("web", &other, &BOTH), "release", "another image"),
            (
                request("web", &json!("latest"), &BOTH),
                "release",
                "a digest is written",
            ),
            (
                request("web", &Value::Null, &BOTH),
                "release",
                "names no image",
            ),
            (
                request("lost", &image(), &BOTH),
                "nowhere",
                "there is no sigstore_policy",
            ),
        ];
        for (request, policy, why) in cases {
            let result = one(&issuer, &bot, request).await;
            assert!(result.svids.is_empty() && result.refusal.is_some(), "{why}");
            let event = issued(&issuer).pop().unwrap();
            assert_eq!(event["fields"]["reason"], "no_rule");
            let told = &event["fields"]["sigstore_policies"][policy];
            assert_eq!(told["satisfied"], false);
            let error = told["error"].as_str().unwrap();
            assert!(error.contains(why), "{error}");
        }
    });
}

#[test]
fn more_signatures_than_are_looked_at_are_refused() {
    block_on(async {
        let issuer = Issuer::start();
        issuer.apply(&resources());
        let bot = issuer.join(&issuer.token("web")).await.unwrap();
        let result = ask(&issuer, &bot, &["keyless-signature"; 17]).await;
        assert!(result.refusal.is_some(), "{result:?}");
        let event = issued(&issuer).pop().unwrap();
        assert_eq!(event["fields"]["reason"], "invalid_request");
    });
}

#[test]
fn a_policy_that_changes_counts_at_once() {
    block_on(async {
        let issuer = Issuer::start();
        issuer.apply(&resources());
        let bot = issuer.join(&issuer.token("web")).await.unwrap();
        assert!(ask(&issuer, &bot, &BOTH).await.refusal.is_none());
        issuer.apply(&resources().replace("acme/.*", "other/.*"));
        let result = ask(&issuer, &bot, &BOTH).await;
        assert!(result.refusal.is_some(), "{result:?}");
        issuer.run(&["delete", "sigstore_policy/release"]);
        assert!(ask(&issuer, &bot, &BOTH).await.refusal.is_some());
        let events = issuer.audit();
        for name in ["create", "update", "delete"] {
            let name = format!("sigstore_policy.{name}");
            assert!(events.iter().any(|event| event["event"] == name), "{name}");
        }
    });
}

#[test]
fn it_is_explained_with_signatures_out_of_files() {
    let issuer = Issuer::start();
    issuer.apply(&resources());
    let attributes = issuer.home.path().join("attributes.yaml");
    let told = format!(
        "workload: {{sigstore: {{attested: true, image_digest: {}}}}}\n",
        image()
    );
    fs::write(&attributes, told).unwrap();
    let explain = |signatures: &[&str]| {
        let mut arguments = [
            "explain",
            "--bot",
            "web",
            "--identity",
            "web",
            "--attributes",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(attributes.display().to_string());
        for name in signatures {
            let file = fixture(&format!("payloads/{name}.json"));
            arguments.extend(["--signature".to_owned(), file.display().to_string()]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        issuer.run(&arguments)
    };
    let granted = explain(&BOTH);
    assert!(granted.starts_with("GRANTED"), "{granted}");
    let refused = explain(&["keyless-other-subject", "key-provenance"]);
    assert!(refused.starts_with("REFUSED (no_rule)"), "{refused}");
    let why = "\"release\" = false: no signature of the image counts: 1: it is signed by";
    assert!(refused.contains(why), "{refused}");
    assert!(refused.contains("\"built\" = true"), "{refused}");
}

#[test]
fn every_mistake_of_a_policy_is_told_at_its_place() {
    let issuer = Issuer::start();
    let refused = |spec: &str, places: &[&str]| {
        let text =
            format!("kind: sigstore_policy\nversion: v1\nmetadata: {{name: bad}}\nspec:\n{spec}\n");
        let file = issuer.home.path().join("bad.yaml");
        fs::write(&file, text).unwrap();
        let output = issuer.output(&["apply", "-f", file.to_str().unwrap()]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{told}");
        for place in places {
            assert!(told.contains(place), "{place}: {told}");
        }
    };
    refused(
        "  {}",
        &["`key` or `keyless`", "what must be signed is missing"],
    );
    refused(
        "  key: {public: nothing}\n  requirements: {artifact_signature: true}",
        &["bad.yaml:5:", "no public key in PEM"],
    );
    refused(
        "  keyless:\n    identities: [{issuer: a}]\n    trusted_roots: ['{}']\n  requirements: {artifact_signature: true}",
        &["`subject` or `subject_regex` is missing"],
    );
    refused(
        "  keyless:\n    identities: [{issuer: a, subject_regex: '('}]\n    trusted_roots: ['{}']\n  requirements: {artifact_signature: true, attestations: [{predicate_type: x}]}",
        &[
            "not a regular expression",
            "no trusted root",
            "side by side",
        ],
    );
}
