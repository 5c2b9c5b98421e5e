//! Every check has a payload that fails it and nothing else. `fixtures/README.md` says who made
//! the payloads: not this code, and not what it verifies with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sigstore_policy::{
    Authority, IdentitySource, ImageDigest, MAX_BYTES, MAX_PAYLOADS, MatcherSource, Part, Payload,
    Policy, PolicySource, Requirements,
};
use sigstore_verify::trust_root::{
    SIGSTORE_GITHUB_TRUSTED_ROOT, SIGSTORE_PRODUCTION_TRUSTED_ROOT, SIGSTORE_STAGING_TRUSTED_ROOT,
};

const ISSUER: &str = "https://token.actions.example.org";
const SUBJECT: &str =
    "https://github.example.org/acme/app/.github/workflows/release.yml@refs/heads/main";
const SLSA: &str = "https://slsa.dev/provenance/v1";

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read_to_string(folder.join(name)).unwrap()
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&fixture(&format!("payloads/{name}.json"))).unwrap()
}

fn payload_of(value: &Value) -> Payload {
    let simple_signing = value["simple_signing"].as_str();
    Payload {
        bundle: value["bundle"].to_string().into_bytes(),
        simple_signing: simple_signing.map(|text| STANDARD.decode(text).unwrap()),
    }
}

fn payload(name: &str) -> Payload {
    payload_of(&json_of(name))
}

fn image() -> ImageDigest {
    let facts: Value = serde_json::from_str(&fixture("facts.json")).unwrap();
    facts["image"].as_str().unwrap().parse().unwrap()
}

fn exact(text: &str) -> MatcherSource {
    MatcherSource::Exact(text.to_owned())
}

fn keyless_by(issuer: MatcherSource, subject: MatcherSource, root: &str) -> PolicySource {
    PolicySource {
        authority: Authority::Keyless {
            identities: vec![IdentitySource { issuer, subject }],
            trusted_roots: vec![root.to_owned()],
        },
        requirements: Requirements::Signature,
    }
}

fn keyless() -> PolicySource {
    keyless_by(exact(ISSUER), exact(SUBJECT), &fixture("root.json"))
}

fn key(name: &str) -> PolicySource {
    PolicySource {
        authority: Authority::Key(fixture(&format!("keys/{name}.pem"))),
        requirements: Requirements::Signature,
    }
}

fn attesting(source: PolicySource, predicate_types: &[&str]) -> PolicySource {
    PolicySource {
        requirements: Requirements::Attestations(
            predicate_types.iter().map(ToString::to_string).collect(),
        ),
        ..source
    }
}

/// Why not; `Ok` if satisfied.
fn verdict(source: PolicySource, payloads: &[Payload]) -> Result<(), String> {
    let policy = Policy::new(&source).unwrap();
    policy
        .check(&image(), payloads)
        .map_err(|unsatisfied| unsatisfied.to_string())
}

#[track_caller]
fn refused(source: PolicySource, payload: Payload, why: &str) {
    let told = verdict(source, &[payload]).expect_err("it counts");
    assert!(told.contains(why), "{told}");
}

#[test]
fn what_is_signed_as_the_policy_demands_satisfies_it() {
    for name in ["keyless-signature", "keyless-simple-signing"] {
        assert_eq!(verdict(keyless(), &[payload(name)]), Ok(()), "{name}");
    }
    let provenance = attesting(keyless(), &[SLSA]);
    assert_eq!(
        verdict(provenance, &[payload("keyless-provenance")]),
        Ok(())
    );
    for name in ["p256", "p384", "ed25519", "rsa"] {
        let signed = [payload(&format!("key-{name}"))];
        assert_eq!(verdict(key(name), &signed), Ok(()), "{name}");
    }
    for name in ["key-signature", "key-manifest"] {
        assert_eq!(verdict(key("p256"), &[payload(name)]), Ok(()), "{name}");
    }
    let provenance = attesting(key("p256"), &[SLSA]);
    assert_eq!(verdict(provenance, &[payload("key-provenance")]), Ok(()));
}

#[test]
fn cosign_hashes_with_sha_256_whatever_the_key_is() {
    let signed = [payload("key-p384-sha256")];
    assert_eq!(verdict(key("p384-sha256"), &signed), Ok(()));
}

#[test]
fn a_payload_that_does_not_count_takes_nothing_away() {
    let nothing = Payload {
        bundle: b"{".to_vec(),
        simple_signing: None,
    };
    let payloads = [
        nothing,
        payload("keyless-other-image"),
        payload("keyless-provenance"),
        payload("keyless-signature"),
    ];
    assert_eq!(verdict(keyless(), &payloads), Ok(()));
}

#[test]
fn nothing_signed_is_not_satisfied() {
    let told = verdict(keyless(), &[]).unwrap_err();
    assert!(told.contains("nothing that is signed was found"), "{told}");
}

#[test]
fn a_signature_of_another_image_does_not_count() {
    for name in ["keyless-other-image", "keyless-simple-signing-other-image"] {
        refused(keyless(), payload(name), "another image");
    }
    refused(key("p256"), payload("key-other-image"), "another image");
    let provenance = attesting(key("p256"), &[SLSA]);
    let other = payload("key-provenance-other-image");
    refused(provenance, other, "another image");
}

#[test]
fn a_signature_of_another_manifest_does_not_count() {
    let mut signed = json_of("key-manifest");
    signed["bundle"]["messageSignature"]["messageDigest"]["digest"] =
        STANDARD.encode([7; 32]).into();
    refused(key("p256"), payload_of(&signed), "something else");
    signed["bundle"]["messageSignature"]
        .as_object_mut()
        .unwrap()
        .remove("messageDigest");
    refused(key("p256"), payload_of(&signed), "does not say of what");
}

#[test]
fn another_key_does_not_count() {
    for (policy, signed) in [
        ("p256", "key-p384"),
        ("ed25519", "key-p256"),
        ("rsa", "key-rsa-pss"),
    ] {
        refused(key(policy), payload(signed), "not signed by the key");
    }
    refused(
        key("p256"),
        payload("keyless-signature"),
        "not signed by the key",
    );
}

#[test]
fn rsa_pss_does_not_count() {
    refused(
        key("rsa-pss"),
        payload("key-rsa-pss"),
        "not signed by the key",
    );
}

#[test]
fn what_was_changed_after_it_was_signed_does_not_count() {
    // The image is the same; what else it says is not.
    let mut signed = json_of("key-p256");
    let text = signed["simple_signing"].as_str().unwrap();
    let text = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
    let changed = text.replace("acme/app", "evil/app");
    assert_ne!(text, changed);
    signed["simple_signing"] = STANDARD.encode(changed).into();
    refused(key("p256"), payload_of(&signed), "not signed by the key");

    for (name, policy) in [
        ("key-provenance", key("p256")),
        ("keyless-provenance", keyless()),
    ] {
        let mut signed = json_of(name);
        let envelope = &mut signed["bundle"]["dsseEnvelope"];
        let body = STANDARD
            .decode(envelope["payload"].as_str().unwrap())
            .unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        body["predicate"] = json!({"builder": "mine"});
        envelope["payload"] = STANDARD.encode(body.to_string()).into();
        let payload = payload_of(&signed);
        assert!(
            verdict(attesting(policy, &[SLSA]), &[payload]).is_err(),
            "{name}"
        );
    }
}

#[test]
fn an_attestation_of_another_type_does_not_count() {
    let policy = attesting(keyless(), &["https://spdx.dev/Document"]);
    refused(policy, payload("keyless-provenance"), "says something else");
    // Nor is an attestation a signature, nor a signature an attestation.
    refused(
        keyless(),
        payload("keyless-provenance"),
        "says something else",
    );
    let policy = attesting(keyless(), &[SLSA]);
    refused(policy, payload("keyless-signature"), "says something else");
}

#[test]
fn every_attestation_that_is_demanded_must_be_there() {
    let cosign = "https://sigstore.dev/cosign/sign/v1";
    let policy = attesting(keyless(), &[SLSA, cosign]);
    let (provenance, signature) = (payload("keyless-provenance"), payload("keyless-signature"));
    assert!(verdict(policy.clone(), std::slice::from_ref(&provenance)).is_err());
    assert_eq!(verdict(policy, &[provenance, signature]), Ok(()));
}

#[test]
fn somebody_else_does_not_count() {
    for name in [
        "keyless-other-subject",
        "keyless-other-issuer",
        "keyless-e-mail",
    ] {
        refused(keyless(), payload(name), "whom the policy does not name");
    }
}

#[test]
fn patterns_match_the_whole() {
    let pattern = |text: &str| MatcherSource::Pattern(text.to_owned());
    let by = |issuer, subject| keyless_by(issuer, subject, &fixture("root.json"));
    let signed = || payload("keyless-signature");
    let any = by(
        pattern("https://.*"),
        pattern(r"https://github\.example\.org/acme/.*"),
    );
    assert_eq!(verdict(any, &[signed()]), Ok(()));
    for (issuer, subject) in [
        (pattern("token"), exact(SUBJECT)),
        (exact(ISSUER), pattern("acme")),
        // An alternative is part of the pattern, not of what is around it.
        (exact(ISSUER), pattern("https://github|nobody")),
    ] {
        refused(
            by(issuer, subject),
            signed(),
            "whom the policy does not name",
        );
    }
    // Both of one identity: not the issuer of one and the subject of another.
    let Authority::Keyless { trusted_roots, .. } = keyless().authority else {
        panic!()
    };
    let mixed = PolicySource {
        authority: Authority::Keyless {
            identities: vec![
                IdentitySource {
                    issuer: exact(ISSUER),
                    subject: exact("nobody"),
                },
                IdentitySource {
                    issuer: exact("nobody"),
                    subject: exact(SUBJECT),
                },
            ],
            trusted_roots,
        },
        requirements: Requirements::Signature,
    };
    refused(mixed, signed(), "whom the policy does not name");
}

#[test]
fn a_root_that_is_not_trusted_does_not_count() {
    refused(keyless(), payload("keyless-other-root"), "1: ");
    let other = keyless_by(exact(ISSUER), exact(SUBJECT), &fixture("other-root.json"));
    assert!(verdict(other.clone(), &[payload("keyless-signature")]).is_err());
    assert_eq!(
        verdict(other.clone(), &[payload("keyless-other-root")]),
        Ok(())
    );
    // Any of several roots may vouch.
    let Authority::Keyless {
        identities,
        mut trusted_roots,
    } = other.authority
    else {
        panic!()
    };
    trusted_roots.push(fixture("root.json"));
    let both = PolicySource {
        authority: Authority::Keyless {
            identities,
            trusted_roots,
        },
        requirements: Requirements::Signature,
    };
    assert_eq!(verdict(both, &[payload("keyless-signature")]), Ok(()));
}

#[test]
fn a_certificate_that_is_in_no_log_does_not_count() {
    refused(keyless(), payload("keyless-no-sct"), "SCT");
}

#[test]
fn what_is_signed_after_the_certificate_expired_does_not_count() {
    refused(keyless(), payload("keyless-logged-late"), "1: ");
}

#[test]
fn a_log_that_is_not_trusted_does_not_count() {
    refused(keyless(), payload("keyless-other-log"), "1: ");
}

#[test]
fn the_entry_of_another_signature_does_not_count() {
    let stolen = payload("keyless-entry-of-another");
    refused(keyless(), stolen, "does not match");
}

#[test]
fn without_proof_of_the_log_it_does_not_count() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut signed = json_of("keyless-signature");
        change(&mut signed["bundle"]["verificationMaterial"]["tlogEntries"]);
        payload_of(&signed)
    };
    let nothing = with(&|entries| *entries = json!([]));
    refused(keyless(), nothing, "in no transparency log");
    let unproved = with(&|entries| {
        let entry = entries[0].as_object_mut().unwrap();
        entry.remove("inclusionProof");
        entry.remove("inclusionPromise");
    });
    refused(keyless(), unproved, "nothing proves");
    // Without the promise nothing says when it was signed.
    let timeless = with(&|entries| {
        entries[0]
            .as_object_mut()
            .unwrap()
            .remove("inclusionPromise");
    });
    refused(keyless(), timeless, "timestamp");
    let other_time = with(&|entries| entries[0]["integratedTime"] = "1770091507".into());
    refused(keyless(), other_time, "1: ");
    let other_root = with(&|entries| {
        entries[0]["inclusionProof"]["rootHash"] = STANDARD.encode([7; 32]).into();
    });
    refused(keyless(), other_root, "1: ");
    let other_body = with(&|entries| entries[0]["canonicalizedBody"] = "e30=".into());
    refused(keyless(), other_body, "1: ");
}

#[test]
fn a_promise_of_the_log_counts_only_as_it_was_signed() {
    let mut signed = json_of("keyless-simple-signing");
    let entry = &mut signed["bundle"]["verificationMaterial"]["tlogEntries"][0];
    entry["inclusionPromise"]["signedEntryTimestamp"] = STANDARD.encode([7; 70]).into();
    refused(keyless(), payload_of(&signed), "1: ");
    let mut signed = json_of("keyless-simple-signing");
    let entry = &mut signed["bundle"]["verificationMaterial"]["tlogEntries"][0];
    entry["logIndex"] = "1".into();
    refused(keyless(), payload_of(&signed), "1: ");
}

#[test]
fn a_key_is_no_identity() {
    refused(keyless(), payload("key-signature"), "without a certificate");
}

#[test]
fn more_than_is_looked_at_is_refused() {
    let one = payload("keyless-signature");
    let many = vec![one.clone(); MAX_PAYLOADS + 1];
    assert!(
        verdict(keyless(), &many)
            .unwrap_err()
            .contains("at most 16")
    );
    let mut large = one;
    large.bundle.resize(MAX_BYTES + 1, b' ');
    refused(keyless(), large, "at most 524288");
}

#[test]
fn a_policy_that_cannot_be_used_is_refused_with_every_mistake() {
    let parts = |source: PolicySource| -> Vec<_> {
        let mistakes = Policy::new(&source).unwrap_err();
        mistakes.into_iter().map(|mistake| mistake.part).collect()
    };
    assert_eq!(parts(key("rsa-1024")), [Part::Key]);
    let garbage = PolicySource {
        authority: Authority::Key("no key".to_owned()),
        requirements: Requirements::Attestations(vec![]),
    };
    assert_eq!(parts(garbage), [Part::Key, Part::Attestations]);
    let mut timeless: Value = serde_json::from_str(&fixture("root.json")).unwrap();
    timeless["tlogs"] = json!([]);
    let bad = PolicySource {
        authority: Authority::Keyless {
            identities: vec![IdentitySource {
                issuer: MatcherSource::Pattern("(".to_owned()),
                subject: exact(""),
            }],
            trusted_roots: vec!["{}".to_owned(), timeless.to_string()],
        },
        requirements: Requirements::Attestations(vec![String::new()]),
    };
    assert_eq!(
        parts(bad),
        [
            Part::TrustedRoot(0),
            Part::TrustedRoot(1),
            Part::Issuer(0),
            Part::Subject(0),
            Part::Attestation(0),
        ]
    );
    let nobody = PolicySource {
        authority: Authority::Keyless {
            identities: vec![],
            trusted_roots: vec![],
        },
        requirements: Requirements::Signature,
    };
    assert_eq!(parts(nobody), [Part::TrustedRoots, Part::Identities]);
}

/// Bundles of the public instances, in the place of an image's.
mod public {
    use super::*;

    const CONDA: &str = "https://schemas.conda.org/attestations-publish-1.schema.json";
    const PACKAGE: &str = "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f";

    fn check(source: PolicySource, image: &str, name: &str) -> Result<(), String> {
        let payload = Payload {
            bundle: fixture(&format!("public/{name}.json")).into_bytes(),
            simple_signing: None,
        };
        let verdict = Policy::new(&source)
            .unwrap()
            .check(&image.parse().unwrap(), &[payload]);
        verdict.map_err(|why| why.to_string())
    }

    #[test]
    fn a_bundle_of_fulcio_and_rekor_counts() {
        let by = |issuer, subject| {
            let policy = keyless_by(
                exact(issuer),
                exact(subject),
                SIGSTORE_PRODUCTION_TRUSTED_ROOT,
            );
            attesting(policy, &[CONDA])
        };
        let github = "https://token.actions.githubusercontent.com";
        let workflow = "https://github.com/prefix-dev/sigstore-example/.github/workflows/action.yaml@refs/heads/main";
        assert_eq!(check(by(github, workflow), PACKAGE, "rekor-v1"), Ok(()));
        assert!(check(by(github, "https://github.com/"), PACKAGE, "rekor-v1").is_err());
        assert!(check(by("https://gitlab.com", workflow), PACKAGE, "rekor-v1").is_err());
        let other = PACKAGE.replace("5430", "5431");
        assert!(check(by(github, workflow), &other, "rekor-v1").is_err());
    }

    #[test]
    fn an_entry_of_rekor_2_with_a_timestamp_counts() {
        let policy = keyless_by(
            exact("https://github.com/login/oauth"),
            exact("jku@goto.fi"),
            SIGSTORE_STAGING_TRUSTED_ROOT,
        );
        assert_eq!(
            check(attesting(policy, &[CONDA]), PACKAGE, "rekor-v2"),
            Ok(())
        );
    }

    /// GitHub's own instance has timestamps and no logs. Its certificates of releases name
    /// no issuer, so that no identity can be compared: all else is verified.
    #[test]
    fn a_timestamp_alone_counts_where_the_root_has_no_log() {
        let image = "sha256:76f1fe8593bf227cca2c089e3c16dc95014a8d3e89c5dd220530469ca043c428";
        let policy = |root: &str| {
            let any = || MatcherSource::Pattern(".*".to_owned());
            let release = "https://in-toto.io/attestation/release/v0.2";
            attesting(keyless_by(any(), any(), root), &[release])
        };
        let told = check(
            policy(SIGSTORE_GITHUB_TRUSTED_ROOT),
            image,
            "timestamp-only",
        );
        assert!(told.unwrap_err().contains("does not say who signed"));
        let told = check(
            policy(SIGSTORE_PRODUCTION_TRUSTED_ROOT),
            image,
            "timestamp-only",
        );
        assert!(told.unwrap_err().contains("in no transparency log"));
    }
}
