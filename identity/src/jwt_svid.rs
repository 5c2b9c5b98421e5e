//! JWT-SVIDs: claims to be signed, and tokens validated without asking anyone.
//!
//! A [`JwtSvid`] exists only after its whole validation (JW-01 to JW-17): the algorithm
//! before anything else, a header of nothing but `alg`, `kid` and `typ`, the signature by
//! the `jwt-svid` key of `kid` in the bundle of the trust domain of `sub`, the validator's
//! own audience, and the times. The signature is checked before audience and times, so that
//! an error of those speaks of a token that was really issued. Replays are not found
//! (JW-18): keep lives short.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::{
    SpiffeId, TrustBundleSet,
    bundle::KeyAuthority,
    jose::{Claims, ClaimsError, Parts, TokenError, TokenKind, short},
};

/// `typ` of JWT-SVIDs that we issue.
pub const TYPE: &str = "JWT";
/// Most audiences in one token; rust-spiffe reads no more.
pub const MAX_AUDIENCES: usize = 32;
/// Longest audience, in bytes.
pub const MAX_AUDIENCE: usize = 2048;

/// How far clocks may differ: up to 60 seconds, which is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leeway(Duration);

impl Leeway {
    /// The most.
    pub const MAX: Self = Self(Duration::from_secs(60));

    /// This much; `None` if it is more than [`Self::MAX`].
    pub fn new(leeway: Duration) -> Option<Self> {
        (leeway <= Self::MAX.0).then_some(Self(leeway))
    }
}

impl Default for Leeway {
    fn default() -> Self {
        Self::MAX
    }
}

/// The claims of a JWT-SVID to be signed.
pub type JwtClaims = Claims<Jwt>;

/// JWT-SVIDs, as a kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jwt;

impl TokenKind for Jwt {
    const ALSO_REGISTERED: &'static [&'static str] = &[];
}

impl JwtClaims {
    /// `sub`, `aud`, `iat` and `exp` (whole seconds; a fraction is cut off).
    ///
    /// Errors: an id without a path, no audience (JW-08), an empty, overlong or
    /// thirty-third one, an end that is not after the beginning. An audience that is named
    /// twice counts once. One audience is written as a string, several as a list.
    pub fn new(
        id: &SpiffeId,
        audiences: &[impl AsRef<str>],
        issued: SystemTime,
        expires: SystemTime,
    ) -> Result<Self, ClaimsError> {
        let claims = Self::of_subject(id, issued, expires)?;
        Ok(claims.with("aud", audience_claim(audiences)?))
    }

    /// With `iss`.
    #[must_use]
    pub fn issuer(self, issuer: &str) -> Self {
        self.with("iss", json!(issuer))
    }
}

/// `exp` as a token claims it, which proves nothing: for tokens of our own.
pub fn claimed_expiry(token: &str) -> Option<SystemTime> {
    let claims = Parts::of(token).ok()?.claims().ok()?;
    time(&claims, "exp").ok()?
}

/// A validated JWT-SVID.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtSvid {
    id: SpiffeId,
    audiences: Vec<String>,
    expires: SystemTime,
    key_id: String,
    claims: Map<String, Value>,
}

impl JwtSvid {
    /// Validates `token` for a service whose own audience is `audience`, with the bundle of
    /// the trust domain of its `sub`. Works offline.
    pub fn validate(
        token: &str,
        audience: &str,
        bundles: &TrustBundleSet,
        now: SystemTime,
        leeway: Leeway,
    ) -> Result<Self, TokenError> {
        let parts = Parts::of(token)?;
        check_header(&parts)?;
        let key_id = parts.key_id()?.to_owned();
        let claims = parts.claims()?;
        let id = subject(&claims)?;
        let bundle = bundles
            .get(id.trust_domain_name())
            .ok_or_else(|| TokenError::NoBundle { id: id.clone() })?;
        check_signature(&parts, &key_id, &id, bundle.jwt_authorities(), "jwt-svid")?;
        let audiences = audiences(&claims)?;
        if !audiences.iter().any(|named| named == audience) {
            return Err(TokenError::Audience {
                audience: short(audience),
            });
        }
        let expires = check_times(&claims, &id, now, leeway)?;
        Ok(Self {
            id,
            audiences,
            expires,
            key_id,
            claims,
        })
    }

    /// `sub`.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// `aud`.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `exp`.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// `kid`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// JW-02, JW-06.
fn check_header(parts: &Parts<'_>) -> Result<(), TokenError> {
    if let Some(name) = parts
        .header
        .keys()
        .find(|name| !["alg", "kid", "typ"].contains(&name.as_str()))
    {
        return Err(TokenError::HeaderMember { name: short(name) });
    }
    match parts.header.get("typ") {
        None => Ok(()),
        Some(Value::String(typ)) if typ == TYPE || typ == "JOSE" => Ok(()),
        Some(other) => Err(TokenError::Type {
            found: short(&other.to_string()),
            wanted: "JWT, JOSE or none",
        }),
    }
}

fn audience_claim(audiences: &[impl AsRef<str>]) -> Result<Value, ClaimsError> {
    let mut named: Vec<&str> = Vec::new();
    for (index, audience) in audiences.iter().map(AsRef::as_ref).enumerate() {
        let refuse = |why| Err(ClaimsError::Audience { index, why });
        if audience.is_empty() {
            return refuse("it is empty");
        }
        if audience.len() > MAX_AUDIENCE {
            return refuse("it is longer than 2048 bytes");
        }
        if named.contains(&audience) {
            continue;
        }
        if named.len() == MAX_AUDIENCES {
            return refuse("a token has at most 32");
        }
        named.push(audience);
    }
    match named.as_slice() {
        [] => Err(ClaimsError::NoAudience),
        [one] => Ok(json!(one)),
        several => Ok(json!(several)),
    }
}

/// JW-07, WI-05.
pub(crate) fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, TokenError> {
    match claims.get("sub") {
        Some(Value::String(sub)) => SpiffeId::parse(sub).map_err(TokenError::Subject),
        _ => Err(TokenError::Claim {
            claim: "sub",
            wanted: "a SPIFFE ID",
        }),
    }
}

/// JW-14, JW-17, WI-17: `keys` are those of the right use in the right bundle.
pub(crate) fn check_signature(
    parts: &Parts<'_>,
    key_id: &str,
    id: &SpiffeId,
    keys: &[KeyAuthority],
    usage: &'static str,
) -> Result<(), TokenError> {
    let key = keys
        .iter()
        .find(|key| key.key_id() == key_id)
        .and_then(KeyAuthority::key)
        .ok_or_else(|| TokenError::NoKey {
            id: id.clone(),
            kid: short(key_id),
            usage,
        })?;
    if key.verifies(parts.algorithm, parts.signed, &parts.signature) {
        Ok(())
    } else {
        Err(TokenError::Signature { id: id.clone() })
    }
}

/// JW-08, JW-09: a string, or a list of at least one.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    let malformed = TokenError::Claim {
        claim: "aud",
        wanted: "a text or a list of at least one",
    };
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(several)) if !several.is_empty() => several
            .iter()
            .map(|value| {
                value
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| malformed.clone())
            })
            .collect(),
        _ => Err(malformed),
    }
}

/// JW-12, WI-07, WI-08: `exp` is needed, `nbf` is heeded, `iat` bounds nothing (WI-09).
pub(crate) fn check_times(
    claims: &Map<String, Value>,
    id: &SpiffeId,
    now: SystemTime,
    leeway: Leeway,
) -> Result<SystemTime, TokenError> {
    let expires = time(claims, "exp")?.ok_or(TokenError::Claim {
        claim: "exp",
        wanted: NUMERIC_DATE,
    })?;
    if now >= expires + leeway.0 {
        return Err(TokenError::Expired { id: id.clone() });
    }
    if let Some(not_before) = time(claims, "nbf")?
        && now + leeway.0 < not_before
    {
        return Err(TokenError::NotYetValid { id: id.clone() });
    }
    Ok(expires)
}

const NUMERIC_DATE: &str = "a number of seconds since 1970, before the year 10000";

/// A NumericDate (RFC 7519 2); fractions are allowed there.
fn time(
    claims: &Map<String, Value>,
    claim: &'static str,
) -> Result<Option<SystemTime>, TokenError> {
    const YEAR_10000: f64 = 253_402_300_800.0;
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..YEAR_10000).contains(seconds))
        .ok_or(TokenError::Claim {
            claim,
            wanted: NUMERIC_DATE,
        })?;
    Ok(Some(
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds),
    ))
}

#[cfg(test)]
mod tests;
