use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{TrustBundle, TrustDomain, jose, testing::TokenSigner};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

struct World {
    signer: TokenSigner,
    holder: TokenSigner,
    bundles: TrustBundleSet,
}

impl World {
    fn new() -> Self {
        let signer = TokenSigner::new(Algorithm::Es256);
        let bundle = bundle().with_wit_authorities(vec![signer.authority()]);
        Self {
            bundles: TrustBundleSet::new([bundle]),
            holder: TokenSigner::new(Algorithm::Es384),
            signer,
        }
    }

    fn claims(&self) -> Value {
        let mut jwk = self.holder.public().members().clone();
        jwk.insert("alg".to_owned(), json!("ES384"));
        json!({"sub": "spiffe://example.org/web", "exp": 1_100, "cnf": {"jwk": jwk}})
    }

    fn validate(&self, header: &Value, claims: &Value) -> Result<UnprovenWit, TokenError> {
        self.validate_token(&self.signer.token(header, claims))
    }

    fn validate_token(&self, token: &str) -> Result<UnprovenWit, TokenError> {
        UnprovenWit::validate(token, &self.bundles, at(1_000), Leeway::MAX)
    }

    fn with_claim(&self, name: &str, value: Value) -> Result<UnprovenWit, TokenError> {
        let mut claims = self.claims();
        claims[name] = value;
        self.validate(&self.signer.header(TYPE), &claims)
    }
}

fn bundle() -> TrustBundle {
    let trust_domain = TrustDomain::parse("example.org").expect("a name");
    TrustBundle::new(trust_domain, Vec::new()).expect("a bundle")
}

#[test]
fn wi_01_wi_02_wi_03_wi_05_wi_06_wi_10_what_is_built_is_what_is_validated() {
    let world = World::new();
    let id = SpiffeId::parse("spiffe://example.org/web").expect("an id");
    let claims = WitClaims::new(&id, world.holder.public(), at(990), at(1_290))
        .expect("claims")
        .not_before(at(960))
        .token_id("0a1b")
        .extra(Map::from_iter([("team".to_owned(), json!("a"))]))
        .expect("extra");
    let header = jose::Header {
        algorithm: Algorithm::Es256,
        r#type: TYPE,
        key_id: world.signer.key_id(),
    };
    let sign = |message: &[u8]| Ok::<_, ()>(world.signer.sign(message));
    let token = jose::compact(header, claims.claims(), sign).expect("a token");
    let unproven = world.validate_token(&token).expect("valid");
    assert_eq!(unproven.claimed_id(), &id);
    assert_eq!(unproven.expires(), at(1_290));
    let wit = unproven
        .prove(b"proof", &world.holder.sign(b"proof"))
        .expect("proved");
    assert_eq!(wit.id(), &id);
    assert_eq!(wit.key(), world.holder.public());
    assert_eq!(wit.key_id(), world.signer.key_id());
    assert_eq!(wit.claims()["cnf"]["jwk"]["alg"], "ES384");
    assert_eq!(wit.claims().get("aud"), None);
}

#[test]
fn wi_01_wi_02_wi_03_the_header_has_kid_typ_and_one_of_nine_algorithms() {
    let world = World::new();
    let good = world.signer.header(TYPE);
    assert!(world.validate(&good, &world.claims()).is_ok());
    for typ in [
        json!("JWT"),
        json!("WIT+JWT"),
        json!("application/wit+jwt"),
        Value::Null,
    ] {
        let mut header = good.clone();
        header["typ"] = typ.clone();
        let refused = world.validate(&header, &world.claims());
        assert!(matches!(refused, Err(TokenError::Type { .. })), "{typ}");
    }
    let mut header = good.clone();
    header.as_object_mut().expect("an object").remove("kid");
    assert_eq!(
        world.validate(&header, &world.claims()),
        Err(TokenError::NoKeyId)
    );
    // A kid is opaque and case-sensitive.
    let mut header = good.clone();
    header["kid"] = json!(world.signer.key_id().to_uppercase());
    assert!(matches!(
        world.validate(&header, &world.claims()),
        Err(TokenError::NoKey { .. })
    ));
    for alg in ["none", "HS256", "EdDSA"] {
        let mut header = good.clone();
        header["alg"] = json!(alg);
        assert!(matches!(
            world.validate(&header, &world.claims()),
            Err(TokenError::Algorithm { .. })
        ));
    }
}

#[test]
fn wi_04_unknown_header_members_are_ignored_and_crit_is_not() {
    let world = World::new();
    let mut header = world.signer.header(TYPE);
    header["colour"] = json!("green");
    assert!(world.validate(&header, &world.claims()).is_ok());
    header["crit"] = json!(["colour"]);
    assert_eq!(
        world.validate(&header, &world.claims()),
        Err(TokenError::HeaderMember {
            name: "crit".to_owned()
        })
    );
}

#[test]
fn wi_06_cnf_is_a_public_key_with_an_algorithm() {
    let world = World::new();
    let good = world.claims()["cnf"].clone();
    let with = |name: &str, value: Value| {
        let mut cnf = good.clone();
        cnf["jwk"][name] = value;
        world.with_claim("cnf", cnf)
    };
    assert!(with("kid", json!("any")).is_ok());
    for (name, value) in [
        ("alg", json!("EdDSA")),
        ("alg", json!("HS256")),
        ("alg", Value::Null),
        ("d", json!("c2VjcmV0")),
        ("k", json!("c2VjcmV0")),
        ("kty", json!("oct")),
        ("x", json!("AA")),
    ] {
        let refused = with(name, value);
        assert!(
            matches!(refused, Err(TokenError::Claim { claim: "cnf", .. })),
            "{name}"
        );
    }
    for cnf in [
        Value::Null,
        json!({}),
        json!({"kid": "k"}),
        json!("jwk"),
        json!({"jwk": "x"}),
    ] {
        assert!(matches!(
            world.with_claim("cnf", cnf),
            Err(TokenError::Claim { claim: "cnf", .. })
        ));
    }
}

#[test]
fn wi_07_wi_08_wi_09_exp_is_needed_nbf_heeded_iat_not() {
    let world = World::new();
    assert!(matches!(
        world.with_claim("exp", json!(940)),
        Err(TokenError::Expired { .. })
    ));
    assert!(world.with_claim("exp", json!(941)).is_ok());
    assert!(matches!(
        world.with_claim("exp", Value::Null),
        Err(TokenError::Claim { claim: "exp", .. })
    ));
    assert!(matches!(
        world.with_claim("nbf", json!(1_061)),
        Err(TokenError::NotYetValid { .. })
    ));
    assert!(world.with_claim("nbf", json!(1_060)).is_ok());
    assert!(world.with_claim("iat", json!(9_999)).is_ok());
}

#[test]
fn wi_12_wi_13_there_is_no_aud_and_other_claims_are_ignored() {
    let world = World::new();
    for aud in [json!("a"), json!(["a"]), json!([]), Value::Null] {
        assert_eq!(world.with_claim("aud", aud), Err(TokenError::HasAudience));
    }
    assert!(world.with_claim("anything", json!({"a": 1})).is_ok());
    let id = SpiffeId::parse("spiffe://example.org/web").expect("an id");
    for name in ["aud", "cnf", "sub", "exp"] {
        let claims = WitClaims::new(&id, world.holder.public(), at(1), at(2)).expect("claims");
        let refused = claims.extra(Map::from_iter([(name.to_owned(), json!("x"))]));
        assert_eq!(refused, Err(ClaimsError::Registered(name.to_owned())));
    }
}

#[test]
fn wi_15_wi_16_without_proof_of_its_key_it_is_no_identity() {
    let world = World::new();
    let token = world
        .signer
        .token(&world.signer.header(TYPE), &world.claims());
    let validate = || world.validate_token(&token).expect("valid");
    let proof = world.holder.sign(b"challenge");
    assert!(validate().prove(b"challenge", &proof).is_ok());
    for (message, signature) in [
        (
            b"challenge".as_slice(),
            TokenSigner::new(Algorithm::Es384).sign(b"challenge"),
        ),
        (b"challengf", proof.clone()),
        (b"challenge", Vec::new()),
        (b"challenge", world.signer.sign(b"challenge")),
    ] {
        let refused = validate().prove(message, &signature);
        assert!(matches!(refused, Err(TokenError::Proof { .. })));
    }
    // Nor is it one where a JWT-SVID is asked for.
    let bundles =
        TrustBundleSet::new([bundle().with_jwt_authorities(vec![world.signer.authority()])]);
    let refused = crate::JwtSvid::validate(&token, "a", &bundles, at(1_000), Leeway::MAX);
    assert!(matches!(refused, Err(TokenError::Type { .. })));
}

#[test]
fn wi_17_only_keys_of_the_use_wit_svid_count() {
    let world = World::new();
    let token = world
        .signer
        .token(&world.signer.header(TYPE), &world.claims());
    let bundles =
        TrustBundleSet::new([bundle().with_jwt_authorities(vec![world.signer.authority()])]);
    let refused = UnprovenWit::validate(&token, &bundles, at(1_000), Leeway::MAX);
    assert!(matches!(
        refused,
        Err(TokenError::NoKey {
            usage: "wit-svid",
            ..
        })
    ));
    let empty = UnprovenWit::validate(&token, &TrustBundleSet::default(), at(1_000), Leeway::MAX);
    assert!(matches!(empty, Err(TokenError::NoBundle { .. })));
}
