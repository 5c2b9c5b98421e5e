//! From what was approved to a document.

use std::sync::Arc;

use identity::{JwtClaims, WitClaims};

use super::Approved;
use crate::{
    access::{Denial, Refused},
    authority::{Keyring, Leaf, LeafTemplate, SubjectKey},
    resources::SvidKind,
};

/// A signed document.
#[derive(Clone)]
pub enum Document {
    /// An X509-SVID.
    X509 {
        /// The SVID.
        leaf: Leaf,
        /// Which of the request's certificate requests has its key.
        csr: u32,
    },
    /// A JWT-SVID.
    Jwt {
        /// The token: a bearer secret.
        token: String,
        /// `jti`.
        jti: String,
        /// `kid`.
        key_id: String,
    },
    /// A WIT-SVID.
    Wit {
        /// The token.
        token: String,
        /// `jti`.
        jti: String,
        /// `kid`.
        key_id: String,
        /// Which of the request's certificate requests has its key.
        csr: u32,
    },
}

impl std::fmt::Debug for Document {
    // A JWT is a bearer credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::X509 { leaf, .. } => f.debug_tuple("X509").field(&leaf.serial).finish(),
            Self::Jwt { jti, .. } => f.debug_tuple("Jwt").field(jti).finish(),
            Self::Wit { jti, .. } => f.debug_tuple("Wit").field(jti).finish(),
        }
    }
}

/// Signs. `issuer` is the `iss` of JWT-SVIDs, if they are to have one.
pub(super) fn sign(
    keyring: &Keyring,
    issuer: Option<&str>,
    approved: &Approved,
) -> Result<Document, Refused> {
    match approved.kind {
        SvidKind::X509 => x509(keyring, approved),
        SvidKind::Jwt => jwt(keyring, issuer, approved),
        SvidKind::Wit => wit(keyring, approved),
    }
}

fn x509(keyring: &Keyring, approved: &Approved) -> Result<Document, Refused> {
    let (csr, key) = key_of(approved)?;
    let rendered = &approved.rendered;
    let template = LeafTemplate {
        dns_sans: &rendered.dns_sans,
        ip_sans: &rendered.ip_sans,
        subject: Some(&rendered.subject),
        ..LeafTemplate::new(&rendered.id, key, approved.validity)
    };
    let leaf = keyring.sign_leaf(&template).map_err(cannot_sign)?;
    Ok(Document::X509 { leaf, csr })
}

fn jwt(keyring: &Keyring, issuer: Option<&str>, approved: &Approved) -> Result<Document, Refused> {
    let (id, validity) = (&approved.rendered.id, approved.validity);
    let jti = token_id()?;
    let audiences = &approved.audiences;
    let mut claims = JwtClaims::new(id, audiences, validity.not_before, validity.not_after)
        .map_err(cannot_sign)?
        .token_id(&jti);
    if let Some(issuer) = issuer {
        claims = claims.issuer(issuer);
    }
    // Refuses what would override a registered claim, though none should be in here.
    let claims = claims
        .extra(approved.rendered.claims.clone())
        .map_err(|error| Refused::new(Denial::Template, error.to_string()))?;
    let signed = keyring
        .sign_jwt(approved.jwt_algorithm, &claims)
        .map_err(cannot_sign)?;
    Ok(Document::Jwt {
        token: signed.token,
        jti,
        key_id: signed.key_id,
    })
}

fn wit(keyring: &Keyring, approved: &Approved) -> Result<Document, Refused> {
    let (csr, key) = key_of(approved)?;
    let (id, validity) = (&approved.rendered.id, approved.validity);
    let jwk = key
        .jwk()
        .ok_or_else(|| Refused::new(Denial::InvalidCsr, "the key has no form as a JWK"))?;
    let jti = token_id()?;
    // No `iss`: it should not be an https URL (WI-11); no `aud` (WI-12).
    let claims = WitClaims::new(id, &jwk, validity.not_before, validity.not_after)
        .map_err(cannot_sign)?
        .token_id(&jti);
    let signed = keyring.sign_wit(&claims).map_err(cannot_sign)?;
    Ok(Document::Wit {
        token: signed.token,
        jti,
        key_id: signed.key_id,
        csr,
    })
}

fn key_of(approved: &Approved) -> Result<(u32, &Arc<SubjectKey>), Refused> {
    match &approved.key {
        Some((place, key)) => Ok((*place, key)),
        None => Err(Refused::new(Denial::InvalidCsr, "there is no key to sign")),
    }
}

/// 128 random bits, lower-case hex.
fn token_id() -> Result<String, Refused> {
    let mut id = [0u8; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|error| cannot_sign(error.to_string()))?;
    Ok(hex::encode(id))
}

fn cannot_sign(error: impl ToString) -> Refused {
    Refused::new(Denial::Authority, error.to_string())
}
