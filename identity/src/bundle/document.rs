//! The SPIFFE bundle document and the bundle map.
//!
//! A reader that meets something the standard does not know skips that entry and keeps the
//! rest (TB-06, TB-10, X5-31, X5-32); something it knows and finds broken, such as an `x5c`
//! that is no certificate, makes the document unreadable, because an authority that drops
//! out silently looks like an outage. A writer emits what the standard names and nothing
//! else (TB-11, X5-28).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use super::{BundleError, TrustBundle, TrustBundleSet};
use crate::{
    TrustDomain,
    jose::{self, Jwk},
    unique_json,
};

const X509_USE: &str = "x509-svid";
const JWT_USE: &str = "jwt-svid";
const WIT_USE: &str = "wit-svid";
/// Key types that a consumer may act on (RFC 7518 6.1, RFC 8037 2); others are skipped.
const KEY_TYPES: [&str; 3] = ["EC", "RSA", "OKP"];

/// A public key that signs JWT- or WIT-SVIDs: its JWK as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAuthority {
    key_id: String,
    jwk: Map<String, Value>,
    key: Option<Jwk>,
}

impl KeyAuthority {
    /// From a JWK; `None` without a `kid` or with a `kty` that is none of EC, RSA, OKP.
    pub fn from_jwk(mut jwk: Map<String, Value>) -> Option<Self> {
        // The list that it is in tells.
        jwk.remove("use");
        let key_id = jwk.get("kid")?.as_str()?.to_owned();
        let key = Jwk::from_members(&jwk);
        (!key_id.is_empty() && has_known_type(&jwk)).then_some(Self { key_id, jwk, key })
    }

    /// Of a public key under this `kid`.
    pub fn new(key: Jwk, key_id: &str) -> Self {
        Self {
            key_id: key_id.to_owned(),
            jwk: key.with_key_id(key_id),
            key: Some(key),
        }
    }

    /// `kid`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The JWK, all members that were read but `use`.
    pub fn jwk(&self) -> &Map<String, Value> {
        &self.jwk
    }

    /// The key, if it is one that can verify (RSA, ECDSA on a NIST curve, well formed).
    pub fn key(&self) -> Option<&Jwk> {
        self.key.as_ref()
    }

    fn to_entry(&self, usage: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk.insert("use".to_owned(), json!(usage));
        Value::Object(jwk)
    }
}

pub(super) fn read(trust_domain: TrustDomain, json: &[u8]) -> Result<TrustBundle, BundleError> {
    match unique_json::from_slice(json) {
        Ok(document) => read_value(trust_domain, &document),
        Err(reason) => Err(BundleError::Document {
            trust_domain,
            reason,
        }),
    }
}

fn read_value(trust_domain: TrustDomain, document: &Value) -> Result<TrustBundle, BundleError> {
    let entries = match Entries::of(document) {
        Ok(entries) => entries,
        Err(reason) => {
            return Err(BundleError::Document {
                trust_domain,
                reason,
            });
        }
    };
    let mut bundle = TrustBundle::new(trust_domain, entries.x509)?;
    bundle.jwt = entries.jwt;
    bundle.wit = entries.wit;
    bundle.sequence = entries.sequence;
    bundle.refresh_hint = entries.refresh_hint.map(Duration::from_secs);
    Ok(bundle)
}

/// What a document holds, before it is tied to a trust domain.
#[derive(Default)]
struct Entries {
    x509: Vec<CertificateDer<'static>>,
    jwt: Vec<KeyAuthority>,
    wit: Vec<KeyAuthority>,
    sequence: Option<u64>,
    refresh_hint: Option<u64>,
}

impl Entries {
    fn of(document: &Value) -> Result<Self, String> {
        let object = document
            .as_object()
            .ok_or("it is not a JSON object: give a JWK Set with \"keys\"")?;
        let keys = object
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("it has no \"keys\" list: give a JWK Set, \"keys\" may be []")?;
        let mut entries = Self {
            sequence: integer(object, "spiffe_sequence")?,
            refresh_hint: integer(object, "spiffe_refresh_hint")?,
            ..Self::default()
        };
        for (index, key) in keys.iter().enumerate() {
            let jwk = key
                .as_object()
                .ok_or_else(|| format!("key {index} (from 0) is not a JSON object"))?;
            entries
                .take(jwk)
                .map_err(|reason| format!("key {index} (from 0): {reason}"))?;
        }
        Ok(entries)
    }

    /// TB-06, TB-08, TB-10: an entry of unknown type or use is left out.
    fn take(&mut self, jwk: &Map<String, Value>) -> Result<(), String> {
        if !has_known_type(jwk) {
            return Ok(());
        }
        match jwk.get("use").and_then(Value::as_str) {
            Some(X509_USE) => self.x509.extend(x5c(jwk)?),
            Some(JWT_USE) => push_unique(&mut self.jwt, jwk)?,
            Some(WIT_USE) => push_unique(&mut self.wit, jwk)?,
            _ => {}
        }
        Ok(())
    }
}

/// Adds a key with a `kid`; one without is left out. Two different keys of one use under one
/// `kid` leave open which one is meant: such a document is refused (JW-16, WI-17).
fn push_unique(keys: &mut Vec<KeyAuthority>, jwk: &Map<String, Value>) -> Result<(), String> {
    let Some(key) = KeyAuthority::from_jwk(jwk.clone()) else {
        return Ok(());
    };
    match keys.iter().find(|other| other.key_id == key.key_id) {
        None => keys.push(key),
        Some(same) if *same == key => {}
        Some(_) => {
            return Err(format!(
                "another key of its use has the kid {:?} too: give each key its own",
                jose::short(&key.key_id)
            ));
        }
    }
    Ok(())
}

fn has_known_type(jwk: &Map<String, Value>) -> bool {
    jwk.get("kty")
        .and_then(Value::as_str)
        .is_some_and(|kty| KEY_TYPES.contains(&kty))
}

/// The first certificate of `x5c`, if there is one (X5-29, X5-31, X5-32).
fn x5c(jwk: &Map<String, Value>) -> Result<Option<CertificateDer<'static>>, String> {
    let Some(first) = jwk
        .get("x5c")
        .and_then(Value::as_array)
        .and_then(|values| values.first())
    else {
        return Ok(None);
    };
    let text = first
        .as_str()
        .ok_or("its x5c holds something that is not text")?;
    let der = STANDARD
        .decode(text)
        .map_err(|error| format!("its x5c is not standard base64: {error}"))?;
    Ok(Some(CertificateDer::from(der)))
}

/// An optional non-negative integer of up to 64 bits (TB-03, TB-04).
fn integer(object: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    object.get(name).map_or(Ok(None), |value| {
        value
            .as_u64()
            .map(Some)
            .ok_or_else(|| format!("\"{name}\" is {value}: give an integer from 0 to 2^64-1"))
    })
}

pub(super) fn write(bundle: &TrustBundle) -> Vec<u8> {
    let mut document = document(bundle);
    if let (Value::Object(object), Some(hint)) = (&mut document, bundle.refresh_hint) {
        object.insert("spiffe_refresh_hint".to_owned(), json!(hint.as_secs()));
    }
    document.to_string().into_bytes()
}

/// The document without its refresh hint.
fn document(bundle: &TrustBundle) -> Value {
    let authorities = bundle.authorities();
    let x509 = authorities
        .certificates
        .iter()
        .zip(&authorities.details)
        .map(|(der, details)| {
            let mut jwk = details.jwk.clone();
            jwk.insert("use".to_owned(), json!(X509_USE));
            jwk.insert("x5c".to_owned(), json!([STANDARD.encode(der)]));
            Value::Object(jwk)
        });
    let jwt = bundle.jwt.iter().map(|key| key.to_entry(JWT_USE));
    let wit = bundle.wit.iter().map(|key| key.to_entry(WIT_USE));
    let keys: Vec<Value> = x509.chain(jwt).chain(wit).collect();
    let mut document = json!({ "keys": keys });
    if let (Value::Object(object), Some(sequence)) = (&mut document, bundle.sequence) {
        object.insert("spiffe_sequence".to_owned(), json!(sequence));
    }
    document
}

/// A plain JWK Set of these keys (WA-24).
pub(super) fn jwks(keys: &[KeyAuthority]) -> Vec<u8> {
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| Value::Object(key.jwk.clone()))
        .collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

pub(super) fn read_map(json: &[u8]) -> Result<TrustBundleSet, BundleError> {
    let map = |reason: String| BundleError::Map { reason };
    let document = unique_json::from_slice(json).map_err(map)?;
    let domains = document
        .get("trust_domains")
        .and_then(Value::as_object)
        .ok_or_else(|| map("it has no \"trust_domains\" object".to_owned()))?;
    let mut bundles = BTreeMap::new();
    for (name, bundle) in domains {
        let trust_domain = TrustDomain::parse(name).map_err(BundleError::MapName)?;
        let bundle = read_value(trust_domain.clone(), bundle)?;
        bundles.insert(trust_domain, Arc::new(bundle));
    }
    Ok(TrustBundleSet { bundles })
}

pub(super) fn write_map(set: &TrustBundleSet) -> Vec<u8> {
    let domains: Map<String, Value> = set
        .bundles
        .iter()
        .map(|(name, bundle)| (name.as_str().to_owned(), document(bundle)))
        .collect();
    json!({ "trust_domains": domains }).to_string().into_bytes()
}
