use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::testing::TokenSigner;

fn members(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

#[test]
fn jw_03_there_are_nine_algorithms_and_case_matters() {
    let names: Vec<_> = Algorithm::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(
        names,
        [
            "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"
        ]
    );
    for name in names {
        assert_eq!(Algorithm::parse(name).map(Algorithm::as_str), Some(name));
        assert_eq!(Algorithm::parse(&name.to_lowercase()), None);
    }
    for other in ["none", "HS256", "EdDSA", "ES256K", "", "RS256 "] {
        assert_eq!(Algorithm::parse(other), None, "{other}");
    }
}

#[test]
fn jw_14_every_algorithm_verifies_with_its_own_key_and_no_other() {
    let signers = Algorithm::ALL.map(TokenSigner::new);
    for signer in &signers {
        let signature = signer.sign(b"message");
        for other in &signers {
            let right = other.key_id() == signer.key_id();
            let verifies = other
                .public()
                .verifies(signer.algorithm(), b"message", &signature);
            assert_eq!(
                verifies,
                right,
                "{} by {}",
                signer.algorithm(),
                other.algorithm()
            );
        }
        assert!(
            !signer
                .public()
                .verifies(signer.algorithm(), b"messagf", &signature)
        );
        let mut bent = signature.clone();
        bent[0] ^= 1;
        assert!(
            !signer
                .public()
                .verifies(signer.algorithm(), b"message", &bent)
        );
        assert!(
            !signer
                .public()
                .verifies(signer.algorithm(), b"message", &[])
        );
    }
}

/// PKCS#1 and PSS are not taken for one another, nor one hash for another.
#[test]
fn jw_14_the_algorithm_that_the_token_names_is_the_one_that_counts() {
    let signer = TokenSigner::new(Algorithm::Rs256);
    let signature = signer.sign(b"message");
    for algorithm in Algorithm::ALL {
        let verifies = signer.public().verifies(algorithm, b"message", &signature);
        assert_eq!(verifies, algorithm == Algorithm::Rs256, "{algorithm}");
    }
}

/// The example of RFC 7638 section 3.1.
#[test]
fn a_thumbprint_is_that_of_rfc_7638() {
    let jwk = Jwk::from_members(&members(json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    })));
    assert_eq!(
        jwk.expect("a key").thumbprint(),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

#[test]
fn a_jwk_keeps_what_is_public_and_of_its_type() {
    let signer = TokenSigner::new(Algorithm::Es256);
    let mut with_private = signer.public().members().clone();
    with_private.insert("d".to_owned(), json!("c2VjcmV0"));
    with_private.insert("use".to_owned(), json!("sig"));
    assert_eq!(
        Jwk::from_members(&with_private).as_ref(),
        Some(signer.public())
    );
    for (name, value) in [
        ("kty", json!("OKP")),
        ("kty", json!("oct")),
        ("crv", json!("P-384")),
        ("crv", json!("secp256k1")),
        ("x", json!("AA")),
        ("x", json!("no base64!")),
        ("y", json!(7)),
    ] {
        let mut bent = signer.public().members().clone();
        bent.insert(name.to_owned(), value);
        assert_eq!(Jwk::from_members(&bent), None, "{name}");
    }
}

#[test]
fn jw_01_only_the_compact_form_is_read() {
    let signer = TokenSigner::new(Algorithm::Es256);
    let token = signer.token(&signer.header("JWT"), &json!({}));
    assert!(Parts::of(&token).is_ok());
    let json_form = json!({"payload": "e30", "signatures": []}).to_string();
    for bad in [
        "",
        ".",
        "a.b",
        "a.b.c.d",
        json_form.as_str(),
        &format!("{token}."),
    ] {
        assert_eq!(Parts::of(bad).err(), Some(TokenError::NotCompact), "{bad}");
    }
    for bad in [
        format!("{token}="),
        format!("{token}+"),
        format!(" {token}"),
    ] {
        assert!(
            matches!(Parts::of(&bad).err(), Some(TokenError::Encoding { .. })),
            "{bad}"
        );
    }
    let long = "a".repeat(MAX_TOKEN + 1);
    assert!(matches!(
        Parts::of(&long).err(),
        Some(TokenError::TooLong { .. })
    ));
}

#[test]
fn jw_04_the_algorithm_is_looked_at_before_anything_else() {
    let header =
        |alg: Value| URL_SAFE_NO_PAD.encode(json!({"alg": alg, "crit": ["x"]}).to_string());
    for alg in [
        json!("none"),
        json!("HS256"),
        json!("EdDSA"),
        json!("es256"),
        json!(7),
        Value::Null,
    ] {
        // Everything behind it is broken too.
        let token = format!("{}.%%.%%", header(alg.clone()));
        assert!(
            matches!(Parts::of(&token).err(), Some(TokenError::Algorithm { .. })),
            "{alg}"
        );
    }
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","alg":"none"}"#);
    assert_eq!(
        Parts::of(&format!("{twice}.e30.AA")).err(),
        Some(TokenError::Json { part: "header" })
    );
}
