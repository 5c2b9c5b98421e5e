//! Refusals of the token endpoint (RFC 6749 section 5.2, RFC 8693 section 2.2.2).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tonic::Status;

/// `error` of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The request is not right, or its subject token is not.
    InvalidRequest,
    /// It is no token exchange.
    UnsupportedGrantType,
    /// Nothing is issued for this audience or resource.
    InvalidTarget,
    /// The subject may not have this workload identity.
    InvalidScope,
    /// Not now.
    TemporarilyUnavailable,
    /// Too often.
    SlowDown,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidScope => "invalid_scope",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::SlowDown => "slow_down",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::SlowDown => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthError {
    /// Which.
    pub code: Code,
    /// Why, in words for the caller.
    pub description: String,
}

impl OAuthError {
    /// The description goes out: no secret, nothing that the caller may not know.
    pub(super) fn new(code: Code, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
        }
    }

    /// Of a call that was refused as a whole. RFC 8693 wants `invalid_request` for a
    /// subject token that is wrong or that policy does not accept.
    pub(super) fn from_status(status: &Status) -> Self {
        let code = match status.code() {
            tonic::Code::ResourceExhausted => Code::SlowDown,
            tonic::Code::Unavailable | tonic::Code::Internal | tonic::Code::DeadlineExceeded => {
                Code::TemporarilyUnavailable
            }
            _ => Code::InvalidRequest,
        };
        Self::new(code, status.message())
    }

    /// Of an item that was refused.
    pub(super) fn from_refusal(refusal: &proto::issue::v1::Refusal) -> Self {
        let code = match tonic::Code::from(refusal.code) {
            tonic::Code::PermissionDenied => Code::InvalidScope,
            tonic::Code::Unavailable => Code::TemporarilyUnavailable,
            tonic::Code::ResourceExhausted => Code::SlowDown,
            _ => Code::InvalidRequest,
        };
        Self::new(code, refusal.message.as_str())
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        // RFC 6749 section 5.2: no quotes, no backslash, printable ASCII only.
        let description: String = self
            .description
            .chars()
            .map(|character| match character {
                '"' => '\'',
                '\\' => '/',
                ' '..='~' => character,
                _ => '?',
            })
            .collect();
        let body = json!({ "error": self.code.as_str(), "error_description": description });
        let mut response = (self.code.status(), Json(body)).into_response();
        super::never_store(&mut response);
        if matches!(self.code, Code::SlowDown | Code::TemporarilyUnavailable) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
