//! Claims to be signed: what all kinds of token have in common.

use std::{marker::PhantomData, time::SystemTime};

use serde_json::{Map, Value, json};

use super::ClaimsError;
use crate::SpiffeId;

/// Claims that the issuer sets; extra claims may not have these names (RFC 7519 4.1).
pub const REGISTERED_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

/// The claims of a token of the kind `K`: [`JwtClaims`](crate::JwtClaims) or
/// [`WitClaims`](crate::WitClaims), which say how to begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims<K> {
    members: Map<String, Value>,
    kind: PhantomData<K>,
}

/// A kind of token.
pub trait TokenKind {
    /// Names that extra claims may not have, beside [`REGISTERED_CLAIMS`].
    const ALSO_REGISTERED: &'static [&'static str];
}

impl<K: TokenKind> Claims<K> {
    /// `sub`, `iat` and `exp` (whole seconds; a fraction is cut off).
    pub(crate) fn of_subject(
        id: &SpiffeId,
        issued: SystemTime,
        expires: SystemTime,
    ) -> Result<Self, ClaimsError> {
        if id.is_trust_domain() {
            return Err(ClaimsError::NoPath(id.clone()));
        }
        let (iat, exp) = (numeric_date(issued), numeric_date(expires));
        if exp <= iat {
            return Err(ClaimsError::Times);
        }
        let claims = Self {
            members: Map::new(),
            kind: PhantomData,
        };
        Ok(claims
            .with("sub", json!(id.as_str()))
            .with("iat", json!(iat))
            .with("exp", json!(exp)))
    }

    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// With `nbf`.
    #[must_use]
    pub fn not_before(self, not_before: SystemTime) -> Self {
        self.with("nbf", json!(numeric_date(not_before)))
    }

    /// With `jti`, practically unique in the trust domain (WI-10).
    #[must_use]
    pub fn token_id(self, jti: &str) -> Self {
        self.with("jti", json!(jti))
    }

    /// With more claims (JW-13, WI-13). Error: one has a registered name, set or not.
    pub fn extra(mut self, extra: Map<String, Value>) -> Result<Self, ClaimsError> {
        for (name, value) in extra {
            let registered = REGISTERED_CLAIMS.iter().chain(K::ALSO_REGISTERED);
            if registered.into_iter().any(|registered| *registered == name) {
                return Err(ClaimsError::Registered(name));
            }
            self.members.insert(name, value);
        }
        Ok(self)
    }

    /// As they are signed.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.members
    }
}

fn numeric_date(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
