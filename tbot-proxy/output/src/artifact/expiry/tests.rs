use std::{
    collections::BTreeSet,
    time::{Duration, UNIX_EPOCH},
};

use identity::{
    Algorithm, TrustBundleSet,
    testing::{TestCa, TokenSigner},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::*;
use crate::artifact::{
    Format, JKS_KEYS, JKS_TRUST, PKCS12_KEYS, PKCS12_TRUST, SVID, X509Form, x509,
};

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).unwrap()
}

#[test]
fn every_format_of_an_svid_says_until_when_its_leaf_is_valid() {
    let ca = TestCa::new("td");
    let svid = ca.intermediate().svid("/web", Duration::from_secs(3600));
    assert!(svid.chain().len() > 1);
    let formats = BTreeSet::from([Format::Pem, Format::Pkcs12, Format::Jks]);
    let secret = password("changeit");
    let form = X509Form {
        formats: &formats,
        password: Some(&secret),
    };
    let set = x509(&svid, &TrustBundleSet::new([ca.bundle()]), &form).unwrap();
    let expires = |name: &str, form: DatedForm| {
        let contents = set.get(name).unwrap();
        Dated::new(name, form).expires(contents)
    };
    let end = Some(svid.not_after());
    assert_eq!(expires(SVID, DatedForm::ChainPem), end);
    assert_eq!(expires(JKS_KEYS, DatedForm::Jks), end);
    assert_eq!(expires(PKCS12_KEYS, DatedForm::Pkcs12(secret.clone())), end);

    // No key, another password, another format, a piece of one.
    assert_eq!(expires(JKS_TRUST, DatedForm::Jks), None);
    assert_eq!(expires(PKCS12_TRUST, DatedForm::Pkcs12(secret)), None);
    let other = DatedForm::Pkcs12(password("another"));
    assert_eq!(expires(PKCS12_KEYS, other), None);
    assert_eq!(expires(SVID, DatedForm::Jks), None);
    assert_eq!(expires(JKS_KEYS, DatedForm::ChainPem), None);
    let store = set.get(JKS_KEYS).unwrap();
    for length in 0..200 {
        let piece = Dated::new(JKS_KEYS, DatedForm::Jks).expires(&store[..length]);
        assert_eq!(piece, None, "{length} bytes");
    }
}

#[test]
fn a_token_and_a_profile_of_aws_say_it_too() {
    let signer = TokenSigner::new(Algorithm::Es256);
    let claims = json!({ "sub": "spiffe://td/web", "aud": "db", "exp": 1_767_323_045 });
    let token = signer.token(&signer.header("JWT"), &claims);
    let at = Some(UNIX_EPOCH + Duration::from_secs(1_767_323_045));
    let jwt = Dated::new("token", DatedForm::Jwt);
    assert_eq!(jwt.expires(token.as_bytes()), at);
    assert_eq!(jwt.expires(b"mine"), None);

    let file = "[a]\nx_security_token_expires = 2031-01-02T03:04:05Z\n[prod]\nregion = x\n\
                X_SECURITY_TOKEN_EXPIRES=2026-01-02T03:04:05Z\n";
    let of = |profile: &str| {
        let aws = Dated::new("aws", DatedForm::AwsProfile(profile.to_owned()));
        aws.expires(file.as_bytes())
    };
    assert_eq!(of("prod"), at);
    assert!(of("a") > at);
    assert_eq!(of("absent"), None);
}
