//! OAuth 2.0 token exchange (RFC 8693) with curl: a join token for an SVID, in one
//! request of HTTP, on the port of gRPC.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::harness::Issuer;

const GRANT: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange";
const SUBJECT: &str = "subject_token_type=urn:tbot:token-type:join-token";
const SCOPE: &str = "scope=workload_identity:app";

/// An answer of HTTP.
struct Answer {
    status: u16,
    headers: String,
    body: Value,
}

/// curl, which verifies the issuer's certificate by name against the trust bundle.
fn curl(issuer: &Issuer, path: &str, more: &[&str]) -> Answer {
    let bundle: PathBuf = issuer.home.path().join("ca.pem");
    std::fs::write(&bundle, issuer.run(&["bundle"])).unwrap();
    let port = issuer.address.rsplit(':').next().unwrap();
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--include",
            "--http1.1",
            "--max-time",
            "30",
        ])
        .arg("--cacert")
        .arg(&bundle)
        .arg(format!("https://localhost:{port}{path}"))
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (headers, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: headers.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.to_lowercase(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

fn exchange(issuer: &Issuer, fields: &[&str]) -> Answer {
    let mut more = Vec::new();
    for field in fields {
        more.extend(["--data-urlencode", field]);
    }
    curl(issuer, "/v1/token", &more)
}

fn claims(token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn a_join_token_is_exchanged_for_a_jwt_svid() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = format!("subject_token={}", issuer.token("app"));
    let fields = [
        GRANT,
        SUBJECT,
        token.as_str(),
        SCOPE,
        "audience=db",
        "ttl=60",
    ];
    let answer = exchange(&issuer, &fields);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.headers.contains("cache-control: no-store"));
    let body = &answer.body;
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(
        body["issued_token_type"],
        "urn:ietf:params:oauth:token-type:jwt"
    );
    assert_eq!(body["scope"], "workload_identity:app");
    assert_eq!(body["expires_in"], 60);
    let claims = claims(body["access_token"].as_str().unwrap());
    assert_eq!(claims["sub"], body["spiffe_id"]);
    assert_eq!(claims["aud"], "db");
    assert_eq!(claims["exp"], body["expires_at"]);

    // The token is used up, and the answer does not tell that from a wrong one.
    let again = exchange(&issuer, &fields);
    assert_eq!(again.status, 400);
    assert_eq!(
        again.body["error"], "invalid_request",
        "RFC 8693 section 2.2.2"
    );
    let mut wrong = fields;
    wrong[2] = "subject_token=00000000000000000000000000000000";
    assert_eq!(exchange(&issuer, &wrong).body, again.body);

    let events = issuer.audit();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(of("bot.join"), 3, "one granted, two refused");
    let issued: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "spiffe.svid.issued")
        .filter(|event| event["fields"]["svid_type"] == "jwt")
        .collect();
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0]["fields"]["jti"], claims["jti"]);
}

#[test]
fn a_join_token_is_exchanged_for_an_x509_svid() {
    let issuer = Issuer::start();
    issuer.register("app");
    let csr = issuer.home.path().join("csr.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-subj", "/CN=ignored", "-keyout"])
        .arg(issuer.home.path().join("key.pem"))
        .arg("-out")
        .arg(&csr)
        .output()
        .unwrap();
    assert!(made.status.success());
    let token = format!("subject_token={}", issuer.token("app"));
    let csr = format!("csr@{}", csr.display());
    let wanted = "requested_token_type=urn:tbot:token-type:x509-svid";
    let answer = exchange(&issuer, &[GRANT, SUBJECT, &token, SCOPE, wanted, &csr]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["token_type"], "N_A", "RFC 8693 section 2.2.1");
    let chain = issuer.home.path().join("svid.pem");
    std::fs::write(&chain, answer.body["access_token"].as_str().unwrap()).unwrap();
    let verified = Command::new("openssl")
        .args(["verify", "-CAfile"])
        .arg(issuer.home.path().join("ca.pem"))
        .arg(&chain)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn what_may_not_be_had_is_an_invalid_scope_and_recorded() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = format!("subject_token={}", issuer.token("app"));
    let scope = "scope=workload_identity:nothing";
    let answer = exchange(&issuer, &[GRANT, SUBJECT, &token, scope, "audience=db"]);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["error"], "invalid_scope");
    let denied: Vec<_> = issuer
        .audit()
        .into_iter()
        .filter(|event| event["event"] == "spiffe.svid.issued" && event["success"] == false)
        .collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0]["fields"]["reason"], "unknown_workload_identity");
}

#[test]
fn wrong_requests_are_answered_and_bounded() {
    let issuer = Issuer::start();
    let not_a_form = curl(&issuer, "/v1/token", &["--json", "{}"]);
    assert_eq!(
        (not_a_form.status, &not_a_form.body["error"]),
        (400, &json!("invalid_request"))
    );
    assert_eq!(curl(&issuer, "/v1/token", &[]).status, 405);
    assert_eq!(curl(&issuer, "/nothing", &[]).status, 404);
    let long = format!("subject_token={}", "a".repeat(32 * 1024));
    let answer = exchange(&issuer, &[GRANT, SUBJECT, &long]);
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(
        exchange(&issuer, &["grant_type=password"]).body["error"],
        "unsupported_grant_type"
    );
    // What is no request is recorded once a window for where it comes from.
    let refused: Vec<_> = issuer
        .audit()
        .into_iter()
        .filter(|event| event["event"] == "bot.join")
        .collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["fields"]["reason"], "invalid_request");
    let error = refused[0]["fields"]["error"].as_str().unwrap();
    assert!(error.contains("Content-Type"), "{error}");
}

#[test]
fn bundle_and_keys_are_public() {
    let issuer = Issuer::start();
    let bundle = curl(&issuer, "/v1/bundle", &[]);
    assert_eq!(bundle.status, 200);
    assert!(bundle.headers.contains("content-type: application/json"));
    let uses = |document: &Value| -> Vec<String> {
        let keys = document["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| key["use"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    assert!(uses(&bundle.body).contains(&"x509-svid".to_owned()));
    let jwks = curl(&issuer, "/v1/jwks", &[]);
    let keys = jwks.body["keys"].as_array().unwrap();
    assert!(keys.len() >= 2, "ES256 and RS256");
    assert!(
        keys.iter()
            .all(|key| key["kid"].is_string() && key.get("x5c").is_none())
    );
    // No `iss`, no discovery.
    assert_eq!(
        curl(&issuer, "/.well-known/openid-configuration", &[]).status,
        404
    );
}
