//! FetchJWTSVID, FetchJWTBundles and ValidateJWTSVID.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::workload::{
    JwtBundlesRequest, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
};
use serde_json::{Map, Value};
use tonic::{Code, Status};

use super::{Outcome, Suite, first, x509};

const AUDIENCES: [&str; 2] = ["conformance-one", "conformance-two"];
const ALL: [&str; 9] = [
    "WA-08", "WA-20", "WA-21", "WA-22", "WA-23", "WA-24", "WA-25", "WA-26", "WA-27",
];

fn asked(audiences: &[&str], id: &str) -> JwtsvidRequest {
    JwtsvidRequest {
        audience: audiences.iter().map(|it| (*it).to_owned()).collect(),
        spiffe_id: id.to_owned(),
    }
}

pub(super) async fn check(suite: &mut Suite) {
    mandatory(suite).await;
    let answer = fetch(suite, asked(&AUDIENCES, "")).await;
    let message = match answer {
        Ok(message) => message,
        Err(status) if status.code() == Code::Unimplemented => {
            suite.unseen(&ALL[1..], "the JWT profile is not offered");
            return;
        }
        Err(status) => {
            let why = format!("no JWT-SVID for this process: {:?}", status.code());
            suite.unseen(&ALL[1..], &why);
            if suite.has_identity {
                // WA-21: all identities of the caller.
                suite.note("WA-21", Outcome::Broken(why));
            }
            return;
        }
    };
    suite.note("WA-01", Outcome::Kept);
    suite.expect("WA-22", !message.svids.is_empty(), "`svids` is empty");
    x509::hints(
        suite,
        "WA-22",
        message.svids.iter().map(|svid| svid.hint.as_str()),
    );
    for svid in &message.svids {
        token(suite, svid).await;
    }
    if let Some(first) = message.svids.first() {
        one_id(suite, &first.spiffe_id).await;
        bundles(suite, &first.spiffe_id).await;
    }
}

async fn fetch(suite: &Suite, request: JwtsvidRequest) -> Result<JwtsvidResponse, Status> {
    let mut client = suite.client.clone();
    let answer = suite.soon(client.fetch_jwtsvid(request)).await?;
    Ok(answer.into_inner())
}

async fn validate(
    suite: &Suite,
    audience: &str,
    token: &str,
) -> Result<proto::workload::ValidateJwtsvidResponse, Status> {
    let mut client = suite.client.clone();
    let request = ValidateJwtsvidRequest {
        audience: audience.to_owned(),
        svid: token.to_owned(),
    };
    let answer = suite.soon(client.validate_jwtsvid(request)).await?;
    Ok(answer.into_inner())
}

/// WA-08.
async fn mandatory(suite: &mut Suite) {
    let answer = fetch(suite, asked(&[], "")).await;
    if matches!(&answer, Err(status) if status.code() == Code::Unimplemented) {
        suite.unseen(&["WA-08"], "the JWT profile is not offered");
        return;
    }
    let what = "FetchJWTSVID without an audience";
    suite.refused("WA-08", what, answer, Code::InvalidArgument);
    for (audience, token) in [("", "a.b.c"), ("a", "")] {
        let answer = validate(suite, audience, token).await;
        let what = format!("ValidateJWTSVID of {token:?} for {audience:?}");
        suite.refused("WA-08", &what, answer, Code::InvalidArgument);
    }
}

/// The claims, whoever has signed them.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok()
}

/// WA-20, WA-25, WA-26.
async fn token(suite: &mut Suite, svid: &Jwtsvid) {
    let id = &svid.spiffe_id;
    let Some(claims) = claims(&svid.svid) else {
        suite.note(
            "WA-20",
            Outcome::Broken(format!("{id}: the token cannot be read")),
        );
        return;
    };
    let embedded: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    for audience in AUDIENCES {
        let why = format!("{id}: the token is for {embedded:?}, without {audience}");
        suite.expect("WA-20", embedded.contains(&audience), why);
        match validate(suite, audience, &svid.svid).await {
            Err(status) => {
                let why = format!("the server's own token for {audience} is refused: {status}");
                suite.note("WA-25", Outcome::Broken(why));
            }
            Ok(valid) => {
                suite.note("WA-25", Outcome::Kept);
                let why = format!("`spiffe_id` is {:?}, not {id}", valid.spiffe_id);
                suite.expect("WA-26", valid.spiffe_id == *id, why);
                let fields = valid.claims.unwrap_or_default().fields;
                for name in ["sub", "aud", "exp"] {
                    let there = fields.contains_key(name);
                    suite.expect("WA-26", there, format!("the claim {name} is not returned"));
                }
            }
        }
    }
    let wrong = validate(suite, "conformance-other", &svid.svid).await;
    suite.refused(
        "WA-25",
        "a token for another audience",
        wrong,
        Code::InvalidArgument,
    );
    // Another payload under the same signature.
    let mut forged = claims;
    forged.insert("conformance".to_owned(), Value::Bool(true));
    let payload = URL_SAFE_NO_PAD.encode(Value::Object(forged).to_string());
    let mut parts: Vec<&str> = svid.svid.split('.').collect();
    if parts.len() == 3 {
        parts[1] = &payload;
        let forged = validate(suite, AUDIENCES[0], &parts.join(".")).await;
        suite.refused(
            "WA-25",
            "a token whose claims were changed",
            forged,
            Code::InvalidArgument,
        );
    }
}

/// WA-21, WA-23.
async fn one_id(suite: &mut Suite, id: &str) {
    match fetch(suite, asked(&AUDIENCES[..1], id)).await {
        Ok(message) => {
            let ids: Vec<_> = message
                .svids
                .iter()
                .map(|svid| svid.spiffe_id.as_str())
                .collect();
            let only = !ids.is_empty() && ids.iter().all(|found| *found == id);
            suite.expect("WA-21", only, format!("asked for {id}, found {ids:?}"));
        }
        Err(status) => suite.note(
            "WA-21",
            Outcome::Broken(format!("asked for {id}: {status}")),
        ),
    }
    let other = format!("{id}/conformance-not-mine");
    let answer = fetch(suite, asked(&AUDIENCES[..1], &other)).await;
    suite.refused(
        "WA-23",
        "an identity that is not ours",
        answer,
        Code::PermissionDenied,
    );
}

/// WA-24.
async fn bundles(suite: &mut Suite, id: &str) {
    let mut client = suite.client.clone();
    let message = match first!(suite, client.fetch_jwt_bundles(JwtBundlesRequest {})) {
        Ok((_, message)) => message,
        Err(status) => {
            suite.note(
                "WA-24",
                Outcome::Broken(format!("FetchJWTBundles: {status}")),
            );
            return;
        }
    };
    let own = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split('/').next());
    let own = format!("spiffe://{}", own.unwrap_or_default());
    let there = message.bundles.contains_key(&own);
    suite.expect(
        "WA-24",
        there,
        format!("the own trust domain {own} is missing"),
    );
    for (key, bytes) in &message.bundles {
        let named = x509::trust_domain(key).is_some();
        suite.expect(
            "WA-24",
            named,
            format!("{key:?} is not the SPIFFE ID of a trust domain"),
        );
        match serde_json::from_slice::<Value>(bytes) {
            Ok(set) => jwks(suite, "WA-24", key, &set, "jwt-svid"),
            Err(error) => {
                let why = format!("the bundle of {key} is no JSON: {error}");
                suite.note("WA-24", Outcome::Broken(why));
            }
        }
    }
}

/// A JWK Set of keys of one use, each with a `kid` of its own.
pub(super) fn jwks(suite: &mut Suite, norm: &'static str, of: &str, set: &Value, usage: &str) {
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        suite.note(
            norm,
            Outcome::Broken(format!("the bundle of {of} is no JWK Set")),
        );
        return;
    };
    let mut kids = std::collections::HashSet::new();
    for key in keys {
        let other = key.get("use").is_some_and(|found| found != usage) || key.get("x5c").is_some();
        suite.expect(
            norm,
            !other,
            format!("the bundle of {of} has a key of another use"),
        );
        let kid = key.get("kid").and_then(Value::as_str);
        let alone = kid.is_some_and(|kid| kids.insert(kid.to_owned()));
        suite.expect(
            norm,
            alone,
            format!("a key of {of} has no kid, or that of another"),
        );
        let private = ["d", "k", "p"].iter().any(|name| key.get(*name).is_some());
        suite.expect(
            norm,
            !private,
            format!("the bundle of {of} has a private key"),
        );
    }
}
