//! What a token exchange request says: an HTML form (RFC 6749 appendix B) with the
//! parameters of RFC 8693 section 2.1 and ours.

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::{
    issue::v1::{self as pb, svid_request},
    join::v1::{self as join, join_request::Evidence},
};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};

use super::error::{Code, OAuthError};

/// The only grant type of the endpoint (RFC 8693 section 2.1).
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// A join token, as `issuer bot add` prints it.
pub const JOIN_TOKEN: &str = "urn:tbot:token-type:join-token";
/// A JWT-SVID is a JWT (RFC 8693 section 3).
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// An X509-SVID, as PEM.
pub const X509: &str = "urn:tbot:token-type:x509-svid";
/// A WIT-SVID.
pub const WIT: &str = "urn:tbot:token-type:wit-svid";
/// What a scope begins with.
pub const SCOPE: &str = "workload_identity:";

/// A parameter may be so often in one request at most.
const REPEATED_MAX: usize = 32;

/// What kind of SVID is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A JWT-SVID for audiences.
    Jwt,
    /// An X509-SVID for a key.
    X509,
    /// A WIT-SVID for a key.
    Wit,
}

impl Wanted {
    /// The URI of its type.
    pub fn token_type(self) -> &'static str {
        match self {
            Self::Jwt => JWT,
            Self::X509 => X509,
            Self::Wit => WIT,
        }
    }
}

/// A request that was understood. Its token is a secret: there is no `Debug`.
pub struct Exchange {
    /// What is wanted.
    pub wanted: Wanted,
    /// Name of the `workload_identity`.
    pub workload_identity: String,
    token: String,
    audiences: Vec<String>,
    csr_der: Vec<u8>,
    ttl: Option<i64>,
}

impl Exchange {
    /// Reads a form. Parameters that are not known are ignored, and empty ones count
    /// as absent (RFC 6749 section 3.2); one that may be there once must be.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let form = Form::parse(body)?;
        match form.one("grant_type")?.as_deref() {
            Some(GRANT_TYPE) => {}
            Some(_) => {
                let why = format!("grant_type must be {GRANT_TYPE}");
                return Err(OAuthError::new(Code::UnsupportedGrantType, why));
            }
            None => return Err(missing("grant_type", GRANT_TYPE)),
        }
        if form.one("actor_token")?.is_some() || form.one("actor_token_type")?.is_some() {
            return Err(invalid("actor_token: delegation is not supported"));
        }
        match form.one("subject_token_type")?.as_deref() {
            Some(JOIN_TOKEN) => {}
            Some(_) => return Err(invalid(format!("subject_token_type must be {JOIN_TOKEN}"))),
            None => return Err(missing("subject_token_type", JOIN_TOKEN)),
        }
        let token = form
            .one("subject_token")?
            .ok_or_else(|| missing("subject_token", "the join token"))?;
        let wanted = match form.one("requested_token_type")?.as_deref() {
            None | Some(JWT) => Wanted::Jwt,
            Some(X509) => Wanted::X509,
            Some(WIT) => Wanted::Wit,
            Some(_) => {
                let why = format!("requested_token_type must be one of {JWT}, {X509}, {WIT}");
                return Err(invalid(why));
            }
        };
        if !form.many("resource")?.is_empty() {
            let why =
                "resource is not used here: name the audience, and the workload identity as scope";
            return Err(OAuthError::new(Code::InvalidTarget, why));
        }
        let audiences = form.many("audience")?;
        match (wanted, audiences.is_empty()) {
            (Wanted::Jwt, true) => {
                let why = "audience is missing: name who is to accept the JWT-SVID";
                return Err(OAuthError::new(Code::InvalidTarget, why));
            }
            (Wanted::X509 | Wanted::Wit, false) => {
                let why = "audience goes with a JWT-SVID only";
                return Err(OAuthError::new(Code::InvalidTarget, why));
            }
            _ => {}
        }
        let csr_der = match (wanted, form.one("csr")?) {
            (Wanted::Jwt, None) => Vec::new(),
            (Wanted::Jwt, Some(_)) => {
                return Err(invalid("csr: a JWT-SVID is bound to no key: leave it out"));
            }
            (_, Some(csr)) => certificate_request(&csr)?,
            (_, None) => return Err(missing("csr", "a PKCS#10 request, PEM or base64 of DER")),
        };
        Ok(Self {
            wanted,
            workload_identity: workload_identity(form.one("scope")?)?,
            token,
            audiences,
            csr_der,
            ttl: seconds(form.one("ttl")?)?,
        })
    }

    /// The scope as it is granted.
    pub fn scope(&self) -> String {
        format!("{SCOPE}{}", self.workload_identity)
    }

    /// The same as a call of gRPC.
    pub fn into_call(self) -> pb::JoinAndIssueRequest {
        let csrs_der = vec![self.csr_der];
        let document = match self.wanted {
            Wanted::Jwt => svid_request::Document::Jwt(pb::JwtRequest {
                audiences: self.audiences,
            }),
            Wanted::X509 => svid_request::Document::X509(pb::X509Request { csrs_der }),
            Wanted::Wit => svid_request::Document::Wit(pb::WitRequest { csrs_der }),
        };
        pb::JoinAndIssueRequest {
            join: Some(join::JoinRequest {
                // No key for the bot: it gets no certificate.
                csr_der: Vec::new(),
                evidence: Some(Evidence::Token(join::TokenEvidence { token: self.token })),
                agent: None,
            }),
            requests: vec![pb::SvidRequest {
                selector: Some(svid_request::Selector::Name(self.workload_identity)),
                document: Some(document),
                ttl: self
                    .ttl
                    .map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
                workload_attributes: None,
                image_signatures: Vec::new(),
            }],
        }
    }
}

struct Form(Vec<(String, String)>);

impl Form {
    fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        if std::str::from_utf8(body).is_err() {
            return Err(invalid("the body is not a form in UTF-8"));
        }
        let fields = form_urlencoded::parse(body)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.into_owned(), value.into_owned()));
        Ok(Self(fields.collect()))
    }

    fn one(&self, name: &'static str) -> Result<Option<String>, OAuthError> {
        let mut values = self.many(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(invalid(format!("{name} is given more than once"))),
        }
    }

    fn many(&self, name: &'static str) -> Result<Vec<String>, OAuthError> {
        let values: Vec<_> = self
            .0
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, value)| value.clone())
            .collect();
        if values.len() > REPEATED_MAX {
            let why = format!("{name} is given more than {REPEATED_MAX} times");
            return Err(invalid(why));
        }
        Ok(values)
    }
}

fn workload_identity(scope: Option<String>) -> Result<String, OAuthError> {
    let wrong = |why: &str| OAuthError::new(Code::InvalidScope, why);
    let scope = scope.ok_or_else(|| {
        wrong("scope is missing: name the workload identity, as workload_identity:web")
    })?;
    let name = scope.strip_prefix(SCOPE).unwrap_or_default();
    if name.is_empty() || name.contains(' ') {
        return Err(wrong(
            "scope must name one workload identity, as workload_identity:web",
        ));
    }
    Ok(name.to_owned())
}

fn seconds(ttl: Option<String>) -> Result<Option<i64>, OAuthError> {
    let Some(ttl) = ttl else {
        return Ok(None);
    };
    match ttl.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Some(i64::from(seconds))),
        _ => Err(invalid("ttl must be a whole number of seconds, at least 1")),
    }
}

fn certificate_request(text: &str) -> Result<Vec<u8>, OAuthError> {
    if text.contains("-----BEGIN") {
        return CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
            .map(|request| request.to_vec())
            .map_err(|_| invalid("csr is not a PEM certificate request"));
    }
    STANDARD
        .decode(text)
        .map_err(|_| invalid("csr is neither PEM nor base64 of DER (is `+` sent as %2B?)"))
}

fn invalid(why: impl Into<String>) -> OAuthError {
    OAuthError::new(Code::InvalidRequest, why)
}

fn missing(name: &str, what: &str) -> OAuthError {
    invalid(format!("{name} is missing: send {what}"))
}
