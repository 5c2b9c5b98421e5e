use serde_json::json;

use super::*;
use crate::{Algorithm, TrustBundle, TrustDomain, jose, testing::TokenSigner};

const AUDIENCE: &str = "https://db.example.org";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn no_leeway() -> Leeway {
    Leeway::new(Duration::ZERO).expect("zero")
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect(text)
}

/// One signer, trusted for JWT-SVIDs of `example.org`.
struct World {
    signer: TokenSigner,
    bundles: TrustBundleSet,
}

impl World {
    fn new(algorithm: Algorithm) -> Self {
        let signer = TokenSigner::new(algorithm);
        let bundles = trusting(vec![signer.authority()]);
        Self { signer, bundles }
    }

    fn header(&self) -> Value {
        self.signer.header("JWT")
    }

    fn validate(&self, header: &Value, claims: &Value) -> Result<JwtSvid, TokenError> {
        self.validate_token(&self.signer.token(header, claims))
    }

    fn validate_token(&self, token: &str) -> Result<JwtSvid, TokenError> {
        JwtSvid::validate(token, AUDIENCE, &self.bundles, at(1_000), no_leeway())
    }

    fn claims_error(&self, name: &str, value: Value) -> TokenError {
        let mut claims = claims();
        claims[name] = value;
        self.validate(&self.header(), &claims).expect_err(name)
    }
}

fn trusting(keys: Vec<KeyAuthority>) -> TrustBundleSet {
    TrustBundleSet::new([bundle("example.org").with_jwt_authorities(keys)])
}

fn bundle(name: &str) -> TrustBundle {
    TrustBundle::new(TrustDomain::parse(name).expect(name), Vec::new()).expect("a bundle")
}

fn claims() -> Value {
    json!({"sub": "spiffe://example.org/web", "aud": [AUDIENCE], "exp": 1_100})
}

#[test]
fn jw_07_jw_08_jw_12_jw_13_what_is_built_is_what_is_validated() {
    for algorithm in [
        Algorithm::Es256,
        Algorithm::Rs256,
        Algorithm::Es512,
        Algorithm::Ps384,
    ] {
        let world = World::new(algorithm);
        let extra = json!({"team": {"name": "a"}, "level": 3});
        let claims = JwtClaims::new(
            &id("spiffe://example.org/web"),
            &[AUDIENCE],
            at(990),
            at(1_290),
        )
        .expect("claims")
        .not_before(at(960))
        .token_id("0a1b")
        .issuer("https://issuer.example.org")
        .extra(extra.as_object().expect("an object").clone())
        .expect("extra");
        let header = jose::Header {
            algorithm,
            r#type: TYPE,
            key_id: world.signer.key_id(),
        };
        let sign = |message: &[u8]| Ok::<_, ()>(world.signer.sign(message));
        let token = jose::compact(header, claims.claims(), sign).expect("a token");
        let svid = world.validate_token(&token).expect("valid");
        assert_eq!(svid.id().as_str(), "spiffe://example.org/web");
        assert_eq!(svid.audiences(), [AUDIENCE]);
        assert_eq!(svid.expires(), at(1_290));
        assert_eq!(svid.key_id(), world.signer.key_id());
        assert_eq!(svid.claims(), claims.claims());
        assert_eq!(
            Value::Object(claims.claims().clone()),
            json!({
                "sub": "spiffe://example.org/web", "aud": AUDIENCE, "iat": 990, "exp": 1_290,
                "nbf": 960, "jti": "0a1b", "iss": "https://issuer.example.org",
                "team": {"name": "a"}, "level": 3,
            })
        );
    }
}

#[test]
fn jw_02_a_header_with_anything_else_is_refused() {
    let world = World::new(Algorithm::Es256);
    assert!(world.validate(&world.header(), &claims()).is_ok());
    for name in [
        "jku", "jwk", "x5u", "x5c", "x5t", "crit", "cty", "b64", "foo",
    ] {
        let mut header = world.header();
        header[name] = json!("x");
        assert_eq!(
            world.validate(&header, &claims()),
            Err(TokenError::HeaderMember {
                name: name.to_owned()
            })
        );
    }
}

#[test]
fn jw_02_a_header_that_we_write_has_alg_kid_and_typ() {
    let header = jose::Header {
        algorithm: Algorithm::Es256,
        r#type: TYPE,
        key_id: "k",
    };
    let token = jose::compact(header, &Map::new(), |_| Ok::<_, ()>(vec![0; 64])).expect("a token");
    let parts = Parts::of(&token).expect("parts");
    assert_eq!(
        Value::Object(parts.header),
        json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
    );
}

#[test]
fn jw_05_a_token_without_kid_is_refused() {
    let world = World::new(Algorithm::Es256);
    for kid in [None, Some(json!("")), Some(json!(7))] {
        let mut header = world.header();
        match kid {
            None => drop(header.as_object_mut().expect("an object").remove("kid")),
            Some(kid) => header["kid"] = kid,
        }
        assert_eq!(world.validate(&header, &claims()), Err(TokenError::NoKeyId));
    }
}

#[test]
fn jw_06_typ_is_jwt_or_jose_or_absent() {
    let world = World::new(Algorithm::Es256);
    let mut header = world.header();
    for good in ["JWT", "JOSE"] {
        header["typ"] = json!(good);
        assert!(world.validate(&header, &claims()).is_ok(), "{good}");
    }
    header.as_object_mut().expect("an object").remove("typ");
    assert!(world.validate(&header, &claims()).is_ok());
    for bad in [
        json!("jwt"),
        json!("wit+jwt"),
        json!("at+jwt"),
        json!(""),
        Value::Null,
        json!(["JWT"]),
    ] {
        header["typ"] = bad.clone();
        let refused = world.validate(&header, &claims());
        assert!(matches!(refused, Err(TokenError::Type { .. })), "{bad}");
    }
}

#[test]
fn jw_07_sub_is_a_spiffe_id() {
    let world = World::new(Algorithm::Es256);
    for bad in [
        "alice",
        "https://example.org/web",
        "spiffe://EXAMPLE.org/web",
        "",
    ] {
        assert!(
            matches!(
                world.claims_error("sub", json!(bad)),
                TokenError::Subject(_)
            ),
            "{bad}"
        );
    }
    assert!(matches!(
        world.claims_error("sub", json!(1)),
        TokenError::Claim { claim: "sub", .. }
    ));
    let no_path = JwtClaims::new(&id("spiffe://example.org"), &["a"], at(1), at(2));
    assert!(matches!(no_path, Err(ClaimsError::NoPath(_))));
}

#[test]
fn jw_08_jw_09_aud_is_there_and_has_the_validators_own() {
    let world = World::new(Algorithm::Es256);
    for good in [
        json!(AUDIENCE),
        json!([AUDIENCE]),
        json!(["other", AUDIENCE]),
    ] {
        let mut claims = claims();
        claims["aud"] = good;
        assert!(world.validate(&world.header(), &claims).is_ok());
    }
    for other in [
        json!("other"),
        json!(["a", "b"]),
        json!("https://db.example.org/"),
        json!([""]),
    ] {
        assert!(matches!(
            world.claims_error("aud", other),
            TokenError::Audience { .. }
        ));
    }
    for malformed in [
        json!([]),
        json!([AUDIENCE, 1]),
        json!(7),
        Value::Null,
        json!({AUDIENCE: 1}),
    ] {
        assert!(matches!(
            world.claims_error("aud", malformed),
            TokenError::Claim { claim: "aud", .. }
        ));
    }
    let mut without = claims();
    without.as_object_mut().expect("an object").remove("aud");
    assert!(matches!(
        world.validate(&world.header(), &without),
        Err(TokenError::Claim { claim: "aud", .. })
    ));
}

#[test]
fn jw_08_jw_10_claims_without_an_audience_are_not_built() {
    let build = |audiences: &[String]| {
        JwtClaims::new(&id("spiffe://example.org/web"), audiences, at(1), at(2))
    };
    assert_eq!(build(&[]), Err(ClaimsError::NoAudience));
    for (bad, index) in [
        (vec![String::new()], 0),
        (vec!["a".into(), "b".repeat(2_049)], 1),
    ] {
        let refused = build(&bad);
        assert!(matches!(refused, Err(ClaimsError::Audience { index: it, .. }) if it == index));
    }
    let many: Vec<_> = (0..33).map(|n| n.to_string()).collect();
    assert!(build(&many).is_err());
    assert_eq!(
        build(&many[..32]).expect("32").claims()["aud"],
        json!(many[..32])
    );
    let twice = build(&["a".into(), "b".into(), "a".into()]).expect("two");
    assert_eq!(twice.claims()["aud"], json!(["a", "b"]));
    assert_eq!(
        build(&["a".into(), "a".into()]).expect("one").claims()["aud"],
        json!("a")
    );
}

#[test]
fn jw_12_exp_is_needed_and_heeded_with_at_most_a_minute_of_leeway() {
    let world = World::new(Algorithm::Es256);
    let mut without = claims();
    without.as_object_mut().expect("an object").remove("exp");
    assert!(matches!(
        world.validate(&world.header(), &without),
        Err(TokenError::Claim { claim: "exp", .. })
    ));
    for malformed in [
        json!("1100"),
        json!(-1),
        json!(1e300),
        Value::Null,
        json!(true),
    ] {
        assert!(matches!(
            world.claims_error("exp", malformed),
            TokenError::Claim { claim: "exp", .. }
        ));
    }
    let token = world.signer.token(&world.header(), &claims());
    let validate = |now, leeway| {
        let leeway = Leeway::new(Duration::from_secs(leeway)).expect("a leeway");
        JwtSvid::validate(&token, AUDIENCE, &world.bundles, now, leeway)
    };
    assert!(validate(at(1_099), 0).is_ok());
    assert!(matches!(
        validate(at(1_100), 0),
        Err(TokenError::Expired { .. })
    ));
    assert!(validate(at(1_159), 60).is_ok());
    assert!(matches!(
        validate(at(1_160), 60),
        Err(TokenError::Expired { .. })
    ));
    assert_eq!(Leeway::new(Duration::from_secs(61)), None);
    let backwards = JwtClaims::new(&id("spiffe://example.org/web"), &["a"], at(5), at(5));
    assert_eq!(backwards, Err(ClaimsError::Times));
}

#[test]
fn jw_13_nbf_is_heeded_and_iat_bounds_nothing() {
    let world = World::new(Algorithm::Es256);
    assert!(matches!(
        world.claims_error("nbf", json!(1_001)),
        TokenError::NotYetValid { .. }
    ));
    assert!(matches!(
        world.claims_error("nbf", json!("soon")),
        TokenError::Claim { claim: "nbf", .. }
    ));
    for (name, value) in [
        ("nbf", json!(1_000)),
        ("nbf", json!(999.5)),
        ("iat", json!(5_000)),
    ] {
        let mut claims = claims();
        claims[name] = value;
        assert!(world.validate(&world.header(), &claims).is_ok(), "{name}");
    }
}

#[test]
fn jw_13_extra_claims_do_not_override_registered_ones() {
    for name in jose::REGISTERED_CLAIMS {
        let built = JwtClaims::new(&id("spiffe://example.org/web"), &["a"], at(1), at(2));
        let extra = Map::from_iter([(name.to_owned(), json!("x"))]);
        assert_eq!(
            built.expect("claims").extra(extra),
            Err(ClaimsError::Registered(name.to_owned()))
        );
    }
}

#[test]
fn jw_14_the_key_of_kid_in_the_bundle_of_the_trust_domain_of_sub_counts() {
    let world = World::new(Algorithm::Es256);
    let other = TokenSigner::new(Algorithm::Es256);
    // A key of another trust domain does not vouch for this one.
    let foreign = TrustBundleSet::new([
        bundle("example.org").with_jwt_authorities(vec![other.authority()]),
        bundle("other.org").with_jwt_authorities(vec![world.signer.authority()]),
    ]);
    let token = world.signer.token(&world.header(), &claims());
    let validate = |token: &str, bundles: &TrustBundleSet| {
        JwtSvid::validate(token, AUDIENCE, bundles, at(1_000), no_leeway())
    };
    assert!(matches!(
        validate(&token, &foreign),
        Err(TokenError::NoKey {
            usage: "jwt-svid",
            ..
        })
    ));
    assert!(matches!(
        validate(&token, &TrustBundleSet::default()),
        Err(TokenError::NoBundle { .. })
    ));
    // Another key under the right kid.
    let imposter = KeyAuthority::new(other.public().clone(), world.signer.key_id());
    assert!(matches!(
        validate(&token, &trusting(vec![imposter])),
        Err(TokenError::Signature { .. })
    ));
    // A signature of the right key over something else.
    let (head, signature) = token.rsplit_once('.').expect("three parts");
    let mut wider = claims();
    wider["sub"] = json!("spiffe://example.org/admin");
    let forged = other.token(&world.header(), &wider);
    let forged = format!(
        "{}.{signature}",
        forged.rsplit_once('.').expect("three parts").0
    );
    assert!(matches!(
        validate(&forged, &world.bundles),
        Err(TokenError::Signature { .. })
    ));
    assert!(matches!(
        validate(&format!("{head}.AAAA"), &world.bundles),
        Err(TokenError::Signature { .. })
    ));
}

#[test]
fn jw_14_an_algorithm_that_is_not_one_of_the_key_is_refused() {
    let world = World::new(Algorithm::Rs256);
    let mut header = world.header();
    header["alg"] = json!("PS256");
    assert!(matches!(
        world.validate(&header, &claims()),
        Err(TokenError::Signature { .. })
    ));
    header["alg"] = json!("ES256");
    assert!(matches!(
        world.validate(&header, &claims()),
        Err(TokenError::Signature { .. })
    ));
}

#[test]
fn jw_16_jw_17_only_keys_of_the_use_jwt_svid_count() {
    let world = World::new(Algorithm::Es256);
    let token = world.signer.token(&world.header(), &claims());
    let wit_only = TrustBundleSet::new([
        bundle("example.org").with_wit_authorities(vec![world.signer.authority()])
    ]);
    let refused = JwtSvid::validate(&token, AUDIENCE, &wit_only, at(1_000), no_leeway());
    assert!(matches!(refused, Err(TokenError::NoKey { .. })));
    // As it is read from a document, each use apart.
    for (usage, accepted) in [
        ("jwt-svid", true),
        ("wit-svid", false),
        ("x509-svid", false),
        ("sig", false),
    ] {
        let mut jwk = world.signer.authority().jwk().clone();
        jwk.insert("use".to_owned(), json!(usage));
        let document = json!({"keys": [jwk]}).to_string();
        let trust_domain = TrustDomain::parse("example.org").expect("a name");
        let read =
            TrustBundle::from_spiffe_json(trust_domain, document.as_bytes()).expect("a bundle");
        let bundles = TrustBundleSet::new([read]);
        let validated = JwtSvid::validate(&token, AUDIENCE, &bundles, at(1_000), no_leeway());
        assert_eq!(validated.is_ok(), accepted, "{usage}");
    }
}

#[test]
fn jw_18_the_same_token_is_accepted_again() {
    let world = World::new(Algorithm::Es256);
    let mut claims = claims();
    claims["jti"] = json!("once");
    let token = world.signer.token(&world.header(), &claims);
    assert!(world.validate_token(&token).is_ok());
    assert!(world.validate_token(&token).is_ok());
}
