use std::time::UNIX_EPOCH;

use super::*;

const ANSWER: &str = r#"{"credentialSet":[{"assumedRoleUser":{"arn":"x"},"credentials":{
    "accessKeyId":"ASIAEXAMPLE","expiration":"2026-01-02T03:04:05Z",
    "secretAccessKey":"secret/+=","sessionToken":"token"},"packedPolicySize":1}],"subjectArn":"x"}"#;

#[test]
fn credentials_of_an_answer() {
    let credentials = Credentials::from_answer(201, ANSWER.as_bytes()).unwrap();
    let seconds = credentials.expires().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(seconds.as_secs(), 1_767_323_045);
    assert_eq!(
        credentials.to_process_json().as_str(),
        r#"{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"secret/+=","SessionToken":"token","Expiration":"2026-01-02T03:04:05Z"}"#
    );
    let shown = format!("{credentials:?}");
    assert!(
        !shown.contains("secret/") && !shown.contains("\"token\""),
        "{shown}"
    );
    let artifacts = credentials.to_artifacts("prod", "spiffe://td/app", SystemTime::UNIX_EPOCH);
    assert_eq!(
        std::str::from_utf8(artifacts.get(AWS_CREDENTIALS).unwrap()).unwrap(),
        "[prod]\naws_access_key_id = ASIAEXAMPLE\naws_secret_access_key = secret/+=\n\
         aws_session_token = token\nx_security_token_expires = 2026-01-02T03:04:05Z\n"
    );
}

#[test]
fn answers_that_cannot_be_used_are_told_without_their_secrets() {
    let refused = Credentials::from_answer(403, br#"{"message":"Untrusted\n certificate"}"#);
    let refused = refused.unwrap_err().to_string();
    assert_eq!(
        refused,
        "AWS refuses CreateSession (HTTP 403): Untrusted  certificate"
    );
    for bad in [
        "",
        "[]",
        r#"{"credentialSet":[]}"#,
        &ANSWER.replace("2026-01-02T03:04:05Z", "soon"),
        // Would end the line and begin a profile of its own.
        &ANSWER.replace("secret/+=", "secret/+=\\n[default]\\nx=y"),
        &ANSWER.replace("ASIAEXAMPLE", ""),
        &ANSWER.replace("\"token\"", "7"),
    ] {
        let error = Credentials::from_answer(200, bad.as_bytes()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("cannot be used") && !error.contains("secret/"),
            "{error}"
        );
    }
}

#[test]
fn names_of_resources() {
    let anchor = "arn:aws:rolesanywhere:eu-west-1:123456789012:trust-anchor/1f2e";
    assert!(Arn::parse(anchor, "rolesanywhere", "trust-anchor").is_ok());
    let role = "arn:aws:iam::123456789012:role/path/app";
    assert!(Arn::parse(role, "iam", "role").is_ok());
    for bad in [
        "",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::1:role/a",
        "role/a",
        "arn:aws:iam::123456789012:user/a",
        "arn:aws:iam::123456789012:role/a\"b",
    ] {
        assert!(Arn::parse(bad, "iam", "role").is_err(), "{bad}");
    }
    let session = CreateSession {
        role: Arn::parse(role, "iam", "role").unwrap(),
        profile: Arn::parse(
            &anchor.replace("trust-anchor", "profile"),
            "rolesanywhere",
            "profile",
        )
        .unwrap(),
        trust_anchor: Arn::parse(
            &anchor.replace("arn:aws:", "arn:aws-cn:"),
            "rolesanywhere",
            "trust-anchor",
        )
        .unwrap(),
        region: None,
        duration: None,
        session_name: None,
    };
    assert_eq!(session.host(), "rolesanywhere.eu-west-1.amazonaws.com.cn");
}
