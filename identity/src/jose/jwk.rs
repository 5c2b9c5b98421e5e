//! Public keys as JWKs.

use aws_lc_rs::{
    encoding::{AsBigEndian as _, EcPrivateKeyBin},
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519},
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use zeroize::Zeroizing;

use super::{Algorithm, algorithm::Scheme};

/// The private JWK (RFC 7518 6.2.2) of an ECDSA key on a NIST curve, with its `alg`, from its
/// PKCS#8 (DER); `None` for other keys. Wiped when dropped.
pub fn private_jwk(pkcs8: &[u8]) -> Option<Zeroizing<String>> {
    [
        ("P-256", "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("P-384", "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("P-521", "ES512", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ]
    .into_iter()
    .find_map(|(curve, algorithm, signing)| {
        let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8).ok()?;
        let secret: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().ok()?;
        let d = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_ref()));
        let point = pair.public_key().as_ref().strip_prefix(&[UNCOMPRESSED])?;
        let (x, y) = point.split_at(point.len() / 2);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // Not through a JSON value, whose copies would stay.
        let mut text = Zeroizing::new(String::with_capacity(512));
        for part in [
            r#"{"kty":"EC","crv":""#,
            curve,
            r#"","alg":""#,
            algorithm,
            r#"","x":""#,
            &x,
            r#"","y":""#,
            &y,
            r#"","d":""#,
            &d,
            r#""}"#,
        ] {
            text.push_str(part);
        }
        Some(text)
    })
}

/// A public key: `kty` and the members that belong to it, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    members: Map<String, Value>,
    key: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Ec { curve: String, point: Vec<u8> },
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

impl Jwk {
    /// Of a SubjectPublicKeyInfo (DER): RSA, or ECDSA on P-256, P-384, P-521; else `None`.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        Self::from_members(&members_of(&spki)?)
    }

    /// Of a JWK's members; those that do not belong to a public key are dropped. `None` for
    /// other key types, and for coordinates or numbers that are malformed.
    pub fn from_members(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let (names, key): (&[&str], _) = match text("kty")? {
            "EC" => {
                let curve = text("crv")?;
                let length = coordinate_length(curve)?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                let point = [&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat();
                (
                    &["kty", "crv", "x", "y"],
                    Material::Ec {
                        curve: curve.to_owned(),
                        point,
                    },
                )
            }
            "RSA" => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                (&["kty", "n", "e"], Material::Rsa { modulus, exponent })
            }
            _ => return None,
        };
        let members = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), jwk.get(*name)?.clone())))
            .collect();
        Some(Self { members, key })
    }

    /// `kty` and its members.
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// RFC 7638 thumbprint with SHA-256, base64url: our `kid`.
    pub fn thumbprint(&self) -> String {
        super::thumbprint(&self.members)
    }

    /// The members and a `kid`, as a bundle entry wants them.
    pub fn with_key_id(&self, key_id: &str) -> Map<String, Value> {
        let mut members = self.members.clone();
        members.insert("kid".to_owned(), json!(key_id));
        members
    }

    /// The algorithm that is usual for it: ES256, ES384 or ES512 by curve, RS256 for RSA.
    pub fn usual_algorithm(&self) -> Algorithm {
        match &self.key {
            Material::Ec { curve, .. } if curve == "P-256" => Algorithm::Es256,
            Material::Ec { curve, .. } if curve == "P-384" => Algorithm::Es384,
            Material::Ec { .. } => Algorithm::Es512,
            Material::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Whether `signature` over `message` is by this key; false too when `algorithm` is not
    /// one for it.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.key, algorithm.scheme()) {
            (
                Material::Ec { curve, point },
                Scheme::Ecdsa {
                    curve: wanted,
                    algorithm,
                },
            ) => {
                curve == wanted
                    && UnparsedPublicKey::new(algorithm, point)
                        .verify(message, signature)
                        .is_ok()
            }
            (Material::Rsa { modulus, exponent }, Scheme::Rsa(parameters)) => {
                let key = PublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                key.verify(parameters, message, signature).is_ok()
            }
            _ => false,
        }
    }
}

const UNCOMPRESSED: u8 = 4;

fn coordinate_length(curve: &str) -> Option<usize> {
    match curve {
        "P-256" => Some(32),
        "P-384" => Some(48),
        "P-521" => Some(66),
        _ => None,
    }
}

/// `kty` and its members of a key (RFC 7518 6.2, 6.3; RFC 8037 2).
pub(crate) fn members_of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Map<String, Value>> {
    let members = match spki.parsed() {
        Ok(PublicKey::EC(point)) => ec_members(spki, point.data())?,
        Ok(PublicKey::RSA(key)) => vec![
            ("kty", "RSA".to_owned()),
            ("n", unsigned(key.modulus)),
            ("e", unsigned(key.exponent)),
        ],
        _ if spki.algorithm.algorithm == OID_SIG_ED25519 => vec![
            ("kty", "OKP".to_owned()),
            ("crv", "Ed25519".to_owned()),
            ("x", URL_SAFE_NO_PAD.encode(&spki.subject_public_key.data)),
        ],
        _ => return None,
    };
    let named = |(name, value): (&str, String)| (name.to_owned(), Value::String(value));
    Some(members.into_iter().map(named).collect())
}

fn ec_members(
    spki: &SubjectPublicKeyInfo<'_>,
    point: &[u8],
) -> Option<Vec<(&'static str, String)>> {
    let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let name = if curve == OID_EC_P256 {
        "P-256"
    } else if curve == OID_NIST_EC_P384 {
        "P-384"
    } else if curve == OID_NIST_EC_P521 {
        "P-521"
    } else {
        return None;
    };
    let bytes = coordinate_length(name)?;
    let (form, coordinates) = point.split_first()?;
    if *form != UNCOMPRESSED || coordinates.len() != 2 * bytes {
        return None;
    }
    let (x, y) = coordinates.split_at(bytes);
    Some(vec![
        ("kty", "EC".to_owned()),
        ("crv", name.to_owned()),
        ("x", URL_SAFE_NO_PAD.encode(x)),
        ("y", URL_SAFE_NO_PAD.encode(y)),
    ])
}

/// Base64url of a big-endian number without leading zeros (RFC 7518 2, "Base64urlUInt").
fn unsigned(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    URL_SAFE_NO_PAD.encode(&bytes[zeros..])
}
