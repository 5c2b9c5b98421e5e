//! JSON Web Signatures as JWT- and WIT-SVIDs use them: compact serialization, nine
//! algorithms, public keys as JWKs.
//!
//! Only what SPIFFE allows is here: `none`, HMAC and EdDSA have no [`Algorithm`], so no code
//! path can accept them (JW-03, JW-04), and the JSON serialization is never read (JW-01). A
//! key decides which algorithms it may verify: a P-256 key is only for ES256, so a token
//! cannot choose another meaning for it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::{unique_json, verify::sha256};

mod algorithm;
mod claims;
mod jwk;

pub use algorithm::Algorithm;
pub use claims::{Claims, REGISTERED_CLAIMS, TokenKind};
pub(crate) use jwk::members_of;
pub use jwk::{Jwk, private_jwk};

/// Longest token that is read, in bytes; rust-spiffe stops at as much per part.
pub const MAX_TOKEN: usize = 64 * 1024;

/// What a token says of itself before its signature.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// `typ`.
    pub r#type: &'static str,
    /// `kid`: which key signed it.
    pub key_id: &'a str,
}

/// Puts a token together: header and claims encoded, then signed by `sign`, which gets the
/// bytes to sign and answers with the signature as JWS wants it (ECDSA: R and S, fixed
/// length; RFC 7518 3.4).
pub fn compact<E>(
    header: Header<'_>,
    claims: &Map<String, Value>,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<String, E> {
    let members =
        json!({"alg": header.algorithm.as_str(), "kid": header.key_id, "typ": header.r#type});
    let mut token = URL_SAFE_NO_PAD.encode(members.to_string());
    token.push('.');
    let claims = serde_json::to_vec(claims).unwrap_or_default();
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// A token taken apart; nothing in it is believed yet.
pub(crate) struct Parts<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) header: Map<String, Value>,
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    claims: &'a str,
}

impl<'a> Parts<'a> {
    /// Splits a compact token and looks at `alg` before anything else (JW-04).
    pub(crate) fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong { bytes: token.len() });
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::NotCompact);
        };
        let header = object("header", header)?;
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => {
                Algorithm::parse(name).ok_or_else(|| TokenError::Algorithm { alg: short(name) })?
            }
            _ => {
                return Err(TokenError::Algorithm {
                    alg: "(none)".to_owned(),
                });
            }
        };
        let signed = &token.as_bytes()[..token.len() - signature.len() - 1];
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Encoding { part: "signature" })?;
        Ok(Self {
            algorithm,
            header,
            signed,
            signature,
            claims,
        })
    }

    /// `kid`; tokens without one are refused, as every SPIFFE library does (JW-05).
    pub(crate) fn key_id(&self) -> Result<&str, TokenError> {
        match self.header.get("kid") {
            Some(Value::String(kid)) if !kid.is_empty() => Ok(kid),
            _ => Err(TokenError::NoKeyId),
        }
    }

    pub(crate) fn claims(&self) -> Result<Map<String, Value>, TokenError> {
        object("claims", self.claims)
    }
}

fn object(part: &'static str, encoded: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| TokenError::Encoding { part })?;
    match unique_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(TokenError::Json { part }),
    }
}

/// No more of a foreign text than helps.
pub(crate) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// RFC 7638 with SHA-256: base64url of the hash of the required members in order.
pub(crate) fn thumbprint(members: &Map<String, Value>) -> String {
    // Taken in order of their names, as RFC 7638 3.3 wants them.
    let required: Map<String, Value> = ["crv", "e", "kty", "n", "x", "y"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), members.get(name)?.clone())))
        .collect();
    URL_SAFE_NO_PAD.encode(sha256(Value::Object(required).to_string().as_bytes()))
}

/// Why a token is not what it should be. Nothing of the token but names of its own choosing
/// is repeated, and those shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token has {bytes} bytes; at most {MAX_TOKEN} are read")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not three parts (JW-01).
    #[error("the token is not in JWS compact form: three base64url parts with dots between")]
    NotCompact,
    /// A part is not base64url without padding.
    #[error("the token's {part} is not base64url without padding")]
    Encoding {
        /// Which part.
        part: &'static str,
    },
    /// A part is not a JSON object, or has a name twice.
    #[error("the token's {part} is not a JSON object with unique names")]
    Json {
        /// Which part.
        part: &'static str,
    },
    /// `alg` is none of the nine (JW-04, WI-03).
    #[error("the token's alg is {alg}: only RS, ES and PS with 256, 384 or 512 are accepted")]
    Algorithm {
        /// What it is.
        alg: String,
    },
    /// A header member that must not be there (JW-02), or `crit` (WI-04).
    #[error("the token's header has {name}: that is not accepted")]
    HeaderMember {
        /// Its name.
        name: String,
    },
    /// `typ` is wrong (JW-06, WI-02).
    #[error("the token's typ is {found}: {wanted} is accepted")]
    Type {
        /// What it is.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// No `kid` (JW-05, WI-01).
    #[error("the token's header has no kid: without it, its key is not known")]
    NoKeyId,
    /// A claim is missing or cannot be read.
    #[error("the token's claim {claim} is missing or malformed: {wanted}")]
    Claim {
        /// Which claim.
        claim: &'static str,
        /// What it is to be.
        wanted: &'static str,
    },
    /// `sub` is not a SPIFFE ID (JW-07, WI-05).
    #[error("the token's sub is not a SPIFFE ID: {0}")]
    Subject(#[source] crate::IdError),
    /// The validator's audience is not among those of the token (JW-09).
    #[error("the token is not for {audience:?}: it is of another audience")]
    Audience {
        /// The validator's own.
        audience: String,
    },
    /// It has an audience, which a WIT may not have (WI-12).
    #[error("the token has an aud: a WIT-SVID has none")]
    HasAudience,
    /// Past `exp` (JW-12, WI-07).
    #[error("the token of {id} has expired")]
    Expired {
        /// Whose.
        id: crate::SpiffeId,
    },
    /// Before `nbf` (WI-08).
    #[error("the token of {id} is not valid yet")]
    NotYetValid {
        /// Whose.
        id: crate::SpiffeId,
    },
    /// No bundle of that trust domain (WA-25).
    #[error("there is no trust bundle for {id}: its trust domain is not trusted here")]
    NoBundle {
        /// Whose.
        id: crate::SpiffeId,
    },
    /// The bundle has no such key of the right use (JW-14, JW-17, WI-17).
    #[error("the trust bundle for {id} has no {usage} key {kid:?} that can be used")]
    NoKey {
        /// Whose.
        id: crate::SpiffeId,
        /// Which key.
        kid: String,
        /// `jwt-svid` or `wit-svid`.
        usage: &'static str,
    },
    /// The signature is not by that key, or `alg` does not fit it.
    #[error("the token of {id} is not signed by the key that it names")]
    Signature {
        /// Whose.
        id: crate::SpiffeId,
    },
    /// The proof of possession is not by the key of `cnf` (WI-16).
    #[error("the holder of the WIT-SVID of {id} did not prove to have its key")]
    Proof {
        /// Whose.
        id: crate::SpiffeId,
    },
}

/// Why claims or a key cannot be put into a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// The subject has no path.
    #[error("{0} names a trust domain, not a workload")]
    NoPath(crate::SpiffeId),
    /// No audience (JW-08).
    #[error("a JWT-SVID needs an audience: name the one service that it is for")]
    NoAudience,
    /// An audience that is empty, too long or one too many.
    #[error("audience {index} (from 0) is not accepted: {why}")]
    Audience {
        /// Which.
        index: usize,
        /// Why.
        why: &'static str,
    },
    /// `exp` is not after the time of issue.
    #[error("a token must end after it was issued")]
    Times,
    /// An extra claim has a registered name.
    #[error("the claim {0:?} is set by the issuer: choose another name")]
    Registered(String),
    /// The key has no JWK form, or none of the nine algorithms is for it.
    #[error("the key cannot be confirmed: use RSA or ECDSA P-256, P-384 or P-521")]
    Key,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
