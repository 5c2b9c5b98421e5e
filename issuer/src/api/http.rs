//! HTTP for callers without gRPC, on the same port and with the same protection
//! against floods and silence as gRPC:
//!
//! - `POST /v1/token`: OAuth 2.0 token exchange (RFC 8693). It is
//!   `IssueService.JoinAndIssue` in other words: the same function joins, decides,
//!   signs and records.
//! - `GET /v1/bundle`: the trust bundle (SPIFFE Trust Domain and Bundle, section 4).
//! - `GET /v1/jwks`: the keys of JWT-SVIDs as a plain JWK Set (RFC 7517).
//! - `GET /.well-known/openid-configuration`: where an OIDC library finds those keys,
//!   if the issuer puts an `iss` into JWT-SVIDs.

pub mod error;
pub mod form;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use proto::issue::v1::{self as pb, issue_service_server::IssueService, svid};
use serde_json::{Value, json};

use self::{
    error::{Code, OAuthError},
    form::{Exchange, Wanted},
};
use super::{REQUEST_MAX, issue::IssueApi, listener::ConnectionInfo};

const FORM: &str = "application/x-www-form-urlencoded";

/// What the routes need.
#[derive(Debug, Clone)]
pub struct HttpApi {
    /// Who joins and issues.
    pub issue: Arc<IssueApi>,
}

/// The routes; see [`nothing`].
pub fn routes(api: HttpApi) -> Router {
    Router::new()
        .route("/v1/token", post(token))
        .route("/v1/bundle", get(bundle))
        .route("/v1/jwks", get(jwks))
        .route("/.well-known/openid-configuration", get(discovery))
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(api)
}

/// The answer to everything else.
pub async fn nothing(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match is_grpc {
        true => tonic::Status::unimplemented("").into_http(),
        false => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
    }
}

async fn token(State(api): State<HttpApi>, request: Request) -> Response {
    match exchange(&api, request).await {
        Ok(answer) => {
            let mut response = Json(answer).into_response();
            never_store(&mut response);
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn exchange(api: &HttpApi, request: Request) -> Result<Value, OAuthError> {
    let (mut parts, body) = request.into_parts();
    let exchange = match understood(&parts.headers, body).await {
        Ok(exchange) => exchange,
        Err(error) => {
            let info = parts.extensions.get::<ConnectionInfo>();
            let remote = info.map(|info| info.remote);
            let recorded = api.issue.join.refuse_no_join(remote, &error.description);
            return Err(match recorded.await.code() {
                tonic::Code::InvalidArgument => error,
                _ => OAuthError::new(Code::TemporarilyUnavailable, "try again"),
            });
        }
    };
    let (wanted, scope) = (exchange.wanted, exchange.scope());
    let mut call = tonic::Request::new(exchange.into_call());
    // Who calls, and the request's id.
    *call.extensions_mut() = std::mem::take(&mut parts.extensions);
    let answer = api.issue.join_and_issue(call).await;
    let mut answer = answer
        .map_err(|status| OAuthError::from_status(&status))?
        .into_inner();
    let result = answer.results.pop().unwrap_or_default();
    if let Some(refusal) = &result.refusal {
        return Err(OAuthError::from_refusal(refusal));
    }
    let svid = result.svids.into_iter().next();
    let svid = svid.ok_or_else(|| OAuthError::new(Code::TemporarilyUnavailable, "no answer"))?;
    Ok(granted(wanted, &scope, svid))
}

/// Reads a request; an error tells what is wrong with it.
async fn understood(headers: &HeaderMap, body: Body) -> Result<Exchange, OAuthError> {
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case(FORM)
        });
    if !is_form {
        let why = format!("Content-Type must be {FORM}");
        return Err(OAuthError::new(Code::InvalidRequest, why));
    }
    let body = axum::body::to_bytes(body, REQUEST_MAX).await.map_err(|_| {
        let why = format!("the body could not be read, or is longer than {REQUEST_MAX} bytes");
        OAuthError::new(Code::InvalidRequest, why)
    })?;
    Exchange::parse(&body)
}

/// RFC 8693 section 2.2.1, with what a SPIFFE workload wants to know beside it.
fn granted(wanted: Wanted, scope: &str, granted: pb::Svid) -> Value {
    // An X509-SVID or a WIT-SVID is no bearer token (RFC 8693 section 2.2.1).
    let token_type = match wanted {
        Wanted::Jwt => "Bearer",
        Wanted::X509 | Wanted::Wit => "N_A",
    };
    let document = match granted.document {
        Some(svid::Document::Jwt(jwt)) => jwt.token,
        Some(svid::Document::Wit(wit)) => wit.token,
        Some(svid::Document::X509(x509)) => identity::certificates_pem(x509.chain_der),
        None => String::new(),
    };
    let time =
        |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds).unwrap_or_default();
    json!({
        "access_token": document,
        "issued_token_type": wanted.token_type(),
        "token_type": token_type,
        "expires_in": granted.ttl.map_or(0, |ttl| ttl.seconds),
        "scope": scope,
        "spiffe_id": granted.spiffe_id,
        "hint": granted.hint,
        "expires_at": time(granted.not_after),
        "renew_at": time(granted.renew_at),
    })
}

async fn bundle(State(api): State<HttpApi>) -> Response {
    document(api.issue.issuer.keyring().bundle().to_spiffe_json())
}

async fn jwks(State(api): State<HttpApi>) -> Response {
    document(api.issue.issuer.keyring().bundle().to_jwks_for_jwt())
}

/// OpenID Connect Discovery 1.0, section 3: what there is of it.
async fn discovery(State(api): State<HttpApi>) -> Response {
    let Some(issuer) = &api.issue.issuer.jwt_issuer else {
        let why = "this issuer puts no iss into JWT-SVIDs: set jwt_issuer";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let base = issuer.trim_end_matches('/');
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{base}/v1/jwks"),
        "token_endpoint": format!("{base}/v1/token"),
        "grant_types_supported": [form::GRANT_TYPE],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
    }))
    .into_response()
}

fn document(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// RFC 6749 section 5.1: what holds a token is not to be stored.
fn never_store(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}

#[cfg(test)]
mod tests;
