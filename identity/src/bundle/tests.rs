use serde_json::{Value, json};

use super::*;
use crate::{
    Algorithm,
    testing::{TestCa, TokenSigner},
};

fn td(name: &str) -> TrustDomain {
    TrustDomain::parse(name).expect(name)
}

fn read(document: &Value) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_spiffe_json(td("example.org"), document.to_string().as_bytes())
}

fn written(bundle: &TrustBundle) -> Value {
    serde_json::from_slice(&bundle.to_spiffe_json()).expect("JSON")
}

/// The JWK of a CA as we write it.
fn entry(ca: &TestCa) -> Value {
    written(&ca.bundle())["keys"][0].clone()
}

fn jwt_key() -> Value {
    json!({"kty": "EC", "use": "jwt-svid", "kid": "k1", "crv": "P-256", "x": "AA", "y": "BB", "x-own": [1, {"a": null}]})
}

#[test]
fn tb_01_a_bundle_is_a_jwk_set() {
    let document = written(&TestCa::new("example.org").bundle());
    assert_eq!(document["keys"].as_array().map(Vec::len), Some(1));
    assert!(read(&json!([])).is_err());
    assert!(read(&json!("keys")).is_err());
    assert!(TrustBundle::from_spiffe_json(td("a"), b"{\"keys\": [").is_err());
    assert!(TrustBundle::from_spiffe_json(td("a"), b"").is_err());
}

#[test]
fn tb_02_other_top_level_members_are_neither_needed_nor_harmful() {
    let bundle = read(&json!({"keys": [], "colour": "green"})).expect("a bundle");
    assert_eq!((bundle.sequence(), bundle.refresh_hint()), (None, None));
}

#[test]
fn tb_03_sequence_has_64_bits() {
    for sequence in [0, 1, (1 << 53) - 1, (1 << 53) + 1, 1 << 63, u64::MAX] {
        let text = format!("{{\"keys\": [], \"spiffe_sequence\": {sequence}}}");
        let bundle = TrustBundle::from_spiffe_json(td("a"), text.as_bytes()).expect("a bundle");
        assert_eq!(bundle.sequence(), Some(sequence));
        let again = TrustBundle::from_spiffe_json(td("a"), &bundle.to_spiffe_json());
        assert_eq!(again.as_ref(), Ok(&bundle));
    }
    for bad in ["-1", "1.5", "1e3", "18446744073709551616", "\"1\"", "null"] {
        let text = format!("{{\"keys\": [], \"spiffe_sequence\": {bad}}}");
        let error = TrustBundle::from_spiffe_json(td("a"), text.as_bytes()).expect_err(bad);
        assert!(error.to_string().contains("spiffe_sequence"), "{error}");
    }
}

#[test]
fn tb_04_refresh_hint_is_whole_seconds() {
    let bundle = read(&json!({"keys": [], "spiffe_refresh_hint": 300})).expect("a bundle");
    assert_eq!(bundle.refresh_hint(), Some(Duration::from_secs(300)));
    assert_eq!(written(&bundle)["spiffe_refresh_hint"], json!(300));
    let cut = bundle.with_refresh_hint(Duration::from_millis(1999));
    assert_eq!(written(&cut)["spiffe_refresh_hint"], json!(1));
    assert!(read(&json!({"keys": [], "spiffe_refresh_hint": 1.5})).is_err());
}

#[test]
fn tb_05_keys_are_needed() {
    for document in [
        json!({}),
        json!({"keys": null}),
        json!({"keys": {}}),
        json!({"Keys": []}),
    ] {
        let error = read(&document).expect_err("no keys");
        assert!(error.to_string().contains("\"keys\""), "{error}");
    }
    assert!(read(&json!({"keys": []})).is_ok());
    assert_eq!(
        written(&read(&json!({"keys": []})).expect("a bundle"))["keys"],
        json!([])
    );
}

#[test]
fn tb_06_unknown_type_or_use_loses_only_that_key() {
    let ca = TestCa::new("example.org");
    let mut odd_type = entry(&ca);
    odd_type["kty"] = json!("LATTICE");
    let mut odd_use = entry(&ca);
    odd_use["use"] = json!("sig");
    let bundle =
        read(&json!({"keys": [odd_type, entry(&ca), odd_use, jwt_key()]})).expect("a bundle");
    assert_eq!(bundle.x509_authorities(), [ca.certificate().clone()]);
    assert_eq!(bundle.jwt_authorities().len(), 1);
}

#[test]
fn tb_07_nothing_usable_is_an_empty_bundle() {
    for keys in [json!([]), json!([{"kty": "oct", "use": "x509-svid"}])] {
        let bundle = read(&json!({ "keys": keys })).expect("a bundle");
        assert!(bundle.x509_authorities().is_empty());
    }
}

#[test]
fn tb_08_every_key_has_a_kty() {
    let ca = TestCa::new("example.org");
    assert_eq!(entry(&ca)["kty"], json!("EC"));
    let mut without = entry(&ca);
    without.as_object_mut().expect("object").remove("kty");
    let bundle = read(&json!({ "keys": [without] })).expect("a bundle");
    assert!(bundle.x509_authorities().is_empty());
}

#[test]
fn tb_09_use_is_written_and_case_sensitive() {
    let bundle = read(&json!({"keys": [jwt_key()]})).expect("a bundle");
    assert_eq!(written(&bundle)["keys"][0]["use"], json!("jwt-svid"));
    for usage in ["X509-SVID", "x509-SVID", "JWT-SVID", "x509"] {
        let mut key = entry(&TestCa::new("example.org"));
        key["use"] = json!(usage);
        let bundle = read(&json!({ "keys": [key] })).expect("a bundle");
        assert!(bundle.x509_authorities().is_empty(), "{usage}");
    }
}

#[test]
fn tb_10_missing_use_loses_only_that_key() {
    let ca = TestCa::new("example.org");
    let mut without = entry(&TestCa::new("example.org"));
    without.as_object_mut().expect("object").remove("use");
    let bundle = read(&json!({"keys": [without, entry(&ca)]})).expect("a bundle");
    assert_eq!(bundle.x509_authorities(), [ca.certificate().clone()]);
}

#[test]
fn tb_11_no_undefined_parameters_are_written() {
    let entry = entry(&TestCa::new("example.org"));
    let mut names: Vec<_> = entry.as_object().expect("object").keys().collect();
    names.sort();
    assert_eq!(names, ["crv", "kty", "use", "x", "x5c", "y"]);
}

#[test]
fn tb_12_bundles_stay_with_their_trust_domain() {
    let (one, two) = (TestCa::new("one.org"), TestCa::new("two.org"));
    let set = TrustBundleSet::new([one.bundle(), two.bundle()]);
    let found = set.get("two.org").expect("two.org");
    assert_eq!(found.trust_domain().as_str(), "two.org");
    assert_eq!(found.x509_authorities(), [two.certificate().clone()]);
    assert!(set.get("three.org").is_none());
    assert!(set.get("One.org").is_none());
}

#[test]
fn tb_13_bundle_map_is_keyed_by_name() {
    let (one, two) = (TestCa::new("one.org"), TestCa::new("two.org"));
    let set = TrustBundleSet::new([two.bundle().with_sequence(u64::MAX), one.bundle()]);
    let names: Vec<_> = set
        .iter()
        .map(|bundle| bundle.trust_domain().as_str())
        .collect();
    assert_eq!(names, ["one.org", "two.org"]);
    assert_eq!(
        TrustBundleSet::from_map_json(&set.to_map_json()).as_ref(),
        Ok(&set)
    );
    let empty = TrustBundleSet::from_map_json(b"{\"trust_domains\": {}}").expect("a map");
    assert!(empty.is_empty());
    for bad in [
        "{}",
        "[]",
        "{\"trust_domains\": []}",
        "{\"trust_domains\": {\"One.org\": {\"keys\": []}}}",
        "{\"trust_domains\": {\"spiffe://one.org\": {\"keys\": []}}}",
        "{\"trust_domains\": {\"one.org\": {}}}",
    ] {
        assert!(
            TrustBundleSet::from_map_json(bad.as_bytes()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn tb_14_duplicate_names_are_refused() {
    for text in [
        r#"{"trust_domains": {"a": {"keys": []}, "a": {"keys": []}}}"#,
        r#"{"trust_domains": {}, "trust_domains": {}}"#,
        r#"{"trust_domains": {"a": {"keys": [], "keys": []}}}"#,
        r#"{"trust_domains": {"a": {"keys": [{"kty": "EC", "kty": "RSA"}]}}}"#,
        r#"{"trust_domains": {"\u0061": {"keys": []}, "a": {"keys": []}}}"#,
    ] {
        let error = TrustBundleSet::from_map_json(text.as_bytes()).expect_err(text);
        assert!(error.to_string().contains("twice"), "{error}");
    }
    let text = br#"{"keys": [], "keys": []}"#;
    assert!(TrustBundle::from_spiffe_json(td("a"), text).is_err());
}

#[test]
fn tb_15_hints_stay_out_of_the_map() {
    let bundle = TestCa::new("one.org")
        .bundle()
        .with_refresh_hint(Duration::from_secs(5));
    let text = String::from_utf8(TrustBundleSet::new([bundle]).to_map_json()).expect("text");
    assert!(!text.contains("spiffe_refresh_hint"), "{text}");
}

#[test]
fn x5_27_one_key_per_ca_certificate() {
    let (one, two) = (TestCa::new("example.org"), TestCa::new("example.org"));
    let certificates = vec![one.certificate().clone(), two.certificate().clone()];
    let bundle = TrustBundle::new(td("example.org"), certificates).expect("a bundle");
    let document = written(&bundle);
    let keys = document["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| key["use"] == json!("x509-svid")));
    assert_eq!(read(&document).as_ref(), Ok(&bundle));
}

#[test]
fn x5_28_no_kid() {
    assert_eq!(entry(&TestCa::new("example.org")).get("kid"), None);
}

#[test]
fn x5_29_x5c_is_one_certificate_in_standard_base64_beside_the_key_members() {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    let ca = TestCa::new("example.org");
    let entry = entry(&ca);
    assert_eq!(entry["x5c"], json!([STANDARD.encode(ca.certificate())]));
    // The members name the very key in the certificate: SPKI ends with 0x04, x, y.
    let decode = |name: &str| {
        URL_SAFE_NO_PAD
            .decode(entry[name].as_str().expect(name))
            .expect("base64url")
    };
    let point = [vec![4], decode("x"), decode("y")].concat();
    assert_eq!((entry["crv"].as_str(), point.len()), (Some("P-256"), 65));
    assert!(ca.certificate().windows(65).any(|part| part == point));
}

#[test]
fn x5_31_missing_or_empty_x5c_is_skipped() {
    let ca = TestCa::new("example.org");
    for x5c in [None, Some(json!([])), Some(json!(null))] {
        let mut odd = entry(&ca);
        let members = odd.as_object_mut().expect("object");
        match x5c.clone() {
            Some(value) => members.insert("x5c".to_owned(), value),
            None => members.remove("x5c"),
        };
        let bundle = read(&json!({"keys": [odd, entry(&ca)]})).expect("a bundle");
        assert_eq!(bundle.x509_authorities().len(), 1, "{x5c:?}");
    }
}

#[test]
fn x5_32_only_the_first_x5c_value_counts() {
    let (ca, other) = (TestCa::new("example.org"), TestCa::new("example.org"));
    let mut two = entry(&ca);
    let values = [
        entry(&ca)["x5c"][0].clone(),
        entry(&other)["x5c"][0].clone(),
        json!("?"),
    ];
    two["x5c"] = json!(values);
    let bundle = read(&json!({ "keys": [two] })).expect("a bundle");
    assert_eq!(bundle.x509_authorities(), [ca.certificate().clone()]);
}

#[test]
fn broken_authorities_are_named_not_dropped() {
    let ca = TestCa::new("example.org");
    let leaf = ca.svid("/web", Duration::from_secs(60)).chain()[0].clone();
    let mut broken = entry(&ca);
    for (x5c, reason) in [
        (json!(["?"]), "base64"),
        (json!([1]), "not text"),
        (json!(["AAAA"]), "not a DER certificate"),
        (
            json!([base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                &leaf
            )]),
            "not a CA certificate",
        ),
    ] {
        broken["x5c"] = x5c;
        let error = read(&json!({"keys": [entry(&ca), broken]})).expect_err(reason);
        let shown = error.to_string();
        assert!(
            shown.contains(reason) && shown.contains("example.org") && shown.contains('1'),
            "{shown}"
        );
    }
    assert!(TrustBundle::new(td("example.org"), vec![leaf]).is_err());
}

#[test]
fn keys_of_jwt_and_wit_survive_a_round_trip() {
    let mut wit = jwt_key();
    wit["use"] = json!("wit-svid");
    wit["kid"] = json!("k2");
    let mut no_kid = jwt_key();
    no_kid.as_object_mut().expect("object").remove("kid");
    let document =
        json!({"keys": [jwt_key(), wit, no_kid], "spiffe_sequence": 7, "spiffe_refresh_hint": 60});
    let bundle = read(&document).expect("a bundle");
    assert_eq!(bundle.jwt_authorities()[0].key_id(), "k1");
    assert_eq!(bundle.wit_authorities()[0].key_id(), "k2");
    let expected =
        json!({"keys": [jwt_key(), wit], "spiffe_sequence": 7, "spiffe_refresh_hint": 60});
    assert_eq!(written(&bundle), expected);
    assert_eq!(read(&expected).as_ref(), Ok(&bundle));
}

#[test]
fn rsa_p384_and_ed25519_authorities_have_jwks() {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
    for (algorithm, kty, members) in [
        (&PKCS_RSA_SHA256, "RSA", &["e", "n"][..]),
        (&PKCS_ECDSA_P384_SHA384, "EC", &["crv", "x", "y"]),
        (&PKCS_ED25519, "OKP", &["crv", "x"]),
    ] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a CA").der().clone();
        let bundle = TrustBundle::new(td("a"), vec![certificate]).expect("a bundle");
        let entry = written(&bundle)["keys"][0].clone();
        assert_eq!(entry["kty"], json!(kty));
        assert!(
            members.iter().all(|name| entry[name].is_string()),
            "{entry}"
        );
        if kty == "RSA" {
            assert_eq!(entry["e"], json!("AQAB"));
        }
    }
}

#[test]
fn pem_round_trip() {
    let ca = TestCa::new("example.org");
    let other = TestCa::new("example.org");
    let certificates = vec![
        ca.certificate().clone(),
        other.certificate().clone(),
        ca.certificate().clone(),
    ];
    let bundle = TrustBundle::new(td("example.org"), certificates).expect("a bundle");
    assert_eq!(
        bundle.x509_authorities().len(),
        2,
        "a duplicate counts once"
    );
    let again = TrustBundle::from_pem(td("example.org"), bundle.to_pem().as_bytes());
    assert_eq!(again.as_ref(), Ok(&bundle));
    for bad in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        assert!(
            TrustBundle::from_pem(td("a"), bad.as_bytes()).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn unusable_crls_are_refused_by_index() {
    let ca = TestCa::new("example.org");
    let error = ca
        .bundle()
        .with_crls(vec![ca.revoke([]), vec![0x30, 0x00].into()])
        .expect_err("accepted");
    assert!(
        matches!(error, BundleError::Crl { index: 1, .. }),
        "{error}"
    );
}

#[test]
fn jw_16_tb_09_tb_11_wi_17_keys_of_tokens_are_written_with_use_and_kid_and_no_more() {
    let [jwt, rsa, wit] =
        [Algorithm::Es256, Algorithm::Rs256, Algorithm::Es256].map(TokenSigner::new);
    let bundle = TestCa::new("example.org")
        .bundle()
        .with_jwt_authorities(vec![jwt.authority(), rsa.authority()])
        .with_wit_authorities(vec![wit.authority()]);
    let document = written(&bundle);
    let keys = document["keys"].as_array().expect("keys");
    let names = |key: &Value| {
        key.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let uses: Vec<_> = keys
        .iter()
        .map(|key| key["use"].as_str().expect("a use"))
        .collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid", "jwt-svid", "wit-svid"]);
    assert_eq!(names(&keys[1]), ["crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!(names(&keys[2]), ["e", "kid", "kty", "n", "use"]);
    assert_eq!(names(&keys[3]), ["crv", "kid", "kty", "use", "x", "y"]);
    let kids: std::collections::BTreeSet<_> =
        keys[1..].iter().map(|key| key["kid"].to_string()).collect();
    assert_eq!(kids.len(), 3);
    assert_eq!(read(&document), Ok(bundle));
}

#[test]
fn wa_24_wa_29_a_plain_key_set_holds_the_keys_of_one_use() {
    let [jwt, wit] = [Algorithm::Es256, Algorithm::Es256].map(TokenSigner::new);
    let bundle = TestCa::new("example.org")
        .bundle()
        .with_jwt_authorities(vec![jwt.authority()])
        .with_wit_authorities(vec![wit.authority()])
        .with_sequence(7);
    for (set, signer) in [
        (bundle.to_jwks_for_jwt(), &jwt),
        (bundle.to_jwks_for_wit(), &wit),
    ] {
        let set: Value = serde_json::from_slice(&set).expect("JSON");
        assert_eq!(
            set,
            json!({"keys": [signer.public().with_key_id(signer.key_id())]})
        );
    }
    // `use` is left out of keys that were read with it, too.
    let again = read(&written(&bundle)).expect("a bundle");
    assert_eq!(again.to_jwks_for_jwt(), bundle.to_jwks_for_jwt());
    let none = TestCa::new("example.org").bundle();
    assert_eq!(none.to_jwks_for_jwt(), b"{\"keys\":[]}");
}

#[test]
fn jw_16_two_keys_under_one_kid_are_refused() {
    let [one, two] = [Algorithm::Es256, Algorithm::Es256].map(TokenSigner::new);
    let entry = |signer: &TokenSigner, kid: &str, usage: &str| {
        let mut jwk = signer.public().with_key_id(kid);
        jwk.insert("use".to_owned(), json!(usage));
        jwk
    };
    let twice = json!({"keys": [entry(&one, "k", "jwt-svid"), entry(&two, "k", "jwt-svid")]});
    let refused = read(&twice).expect_err("two keys of one name").to_string();
    assert!(refused.contains("\"k\""), "{refused}");
    let same = json!({"keys": [entry(&one, "k", "jwt-svid"), entry(&one, "k", "jwt-svid")]});
    assert_eq!(read(&same).expect("one key").jwt_authorities().len(), 1);
    let apart = json!({"keys": [entry(&one, "k", "jwt-svid"), entry(&two, "k", "wit-svid")]});
    assert!(read(&apart).is_ok());
}

#[test]
fn jw_17_a_token_key_that_cannot_be_read_is_kept_and_verifies_nothing() {
    let bundle = read(&json!({"keys": [jwt_key()]})).expect("a bundle");
    assert_eq!(bundle.jwt_authorities()[0].key(), None);
}
