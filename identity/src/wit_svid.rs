//! WIT-SVIDs: tokens that are bound to a key (SPIFFE WIT-SVID, Incubating, at spiffe/spiffe
//! 665a28f).
//!
//! A WIT-SVID says nothing about who shows it: validation ends in an [`UnprovenWit`], and
//! only a proof made with the key of `cnf` turns that into a [`WitSvid`] (WI-15, WI-16). So
//! code that takes a `WitSvid` cannot be handed a copied token. What the proof is over (a
//! WIMSE proof token, an HTTP message signature), how fresh it is and whether it is used
//! once, is for the protocol that carries it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::{
    SpiffeId, TrustBundleSet,
    jose::{Algorithm, Claims, ClaimsError, Jwk, Parts, TokenError, TokenKind, short},
    jwt_svid::{Leeway, check_signature, check_times, subject},
};

/// `typ` of WIT-SVIDs.
pub const TYPE: &str = "wit+jwt";
/// Members of a JWK that are private (RFC 7518 6.2.2, 6.3.2, 6.4).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The claims of a WIT-SVID to be signed. It has no `aud` (WI-12).
pub type WitClaims = Claims<Wit>;

/// WIT-SVIDs, as a kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wit;

impl TokenKind for Wit {
    const ALSO_REGISTERED: &'static [&'static str] = &["cnf"];
}

impl WitClaims {
    /// `sub`, `iat`, `exp`, and `cnf` with the public `key` and its usual algorithm (WI-06).
    ///
    /// Errors: an id without a path, an end that is not after the beginning.
    pub fn new(
        id: &SpiffeId,
        key: &Jwk,
        issued: SystemTime,
        expires: SystemTime,
    ) -> Result<Self, ClaimsError> {
        let claims = Self::of_subject(id, issued, expires)?;
        let mut jwk = key.members().clone();
        jwk.insert("alg".to_owned(), json!(key.usual_algorithm().as_str()));
        Ok(claims.with("cnf", json!({ "jwk": jwk })))
    }
}

/// A validated WIT-SVID whose holder has proved nothing yet: not an identity of anyone.
#[derive(Clone, Debug, PartialEq)]
pub struct UnprovenWit {
    wit: WitSvid,
}

impl UnprovenWit {
    /// Validates `token` with the `wit-svid` keys of the trust domain of its `sub` (WI-01 to
    /// WI-12, WI-17). Unknown claims and header members are ignored, `crit` is refused.
    pub fn validate(
        token: &str,
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
        check_signature(&parts, &key_id, &id, bundle.wit_authorities(), "wit-svid")?;
        if claims.contains_key("aud") {
            return Err(TokenError::HasAudience);
        }
        let (key, algorithm) = confirmation(&claims)?;
        let expires = check_times(&claims, &id, now, leeway)?;
        Ok(Self {
            wit: WitSvid {
                id,
                expires,
                key_id,
                key,
                algorithm,
                claims,
            },
        })
    }

    /// Checks that `signature` over `message` was made with the key of `cnf`, by its `alg`.
    pub fn prove(self, message: &[u8], signature: &[u8]) -> Result<WitSvid, TokenError> {
        let Self { wit } = self;
        if wit.key.verifies(wit.algorithm, message, signature) {
            Ok(wit)
        } else {
            Err(TokenError::Proof { id: wit.id })
        }
    }

    /// `exp`, for who keeps the token (its own holder).
    pub fn expires(&self) -> SystemTime {
        self.wit.expires
    }

    /// The id that it claims; not that of who showed it.
    pub fn claimed_id(&self) -> &SpiffeId {
        &self.wit.id
    }
}

/// A WIT-SVID whose holder proved to have its key.
#[derive(Clone, Debug, PartialEq)]
pub struct WitSvid {
    id: SpiffeId,
    expires: SystemTime,
    key_id: String,
    key: Jwk,
    algorithm: Algorithm,
    claims: Map<String, Value>,
}

impl WitSvid {
    /// `sub`.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// `exp`.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// `kid` of the key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The holder's key.
    pub fn key(&self) -> &Jwk {
        &self.key
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// WI-02, WI-04: `typ` is this one; `crit` would name what we do not know.
fn check_header(parts: &Parts<'_>) -> Result<(), TokenError> {
    if parts.header.contains_key("crit") {
        return Err(TokenError::HeaderMember {
            name: "crit".to_owned(),
        });
    }
    match parts.header.get("typ") {
        Some(Value::String(typ)) if typ == TYPE => Ok(()),
        other => Err(TokenError::Type {
            found: other.map_or_else(|| "absent".to_owned(), |typ| short(&typ.to_string())),
            wanted: TYPE,
        }),
    }
}

/// WI-06: `cnf.jwk` is public and names one of the nine algorithms.
fn confirmation(claims: &Map<String, Value>) -> Result<(Jwk, Algorithm), TokenError> {
    let malformed = TokenError::Claim {
        claim: "cnf",
        wanted: "a public JWK (RSA, or ECDSA on a NIST curve) with its alg",
    };
    let jwk = claims
        .get("cnf")
        .and_then(|cnf| cnf.get("jwk"))
        .and_then(Value::as_object)
        .ok_or_else(|| malformed.clone())?;
    if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
        return Err(malformed);
    }
    let algorithm = jwk
        .get("alg")
        .and_then(Value::as_str)
        .and_then(Algorithm::parse);
    Jwk::from_members(jwk).zip(algorithm).ok_or(malformed)
}

#[cfg(test)]
mod tests;
