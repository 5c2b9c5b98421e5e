//! What a payload says, before anybody looks whether it is true.

use std::collections::BTreeMap;

use serde::Deserialize;
use sigstore_verify::types::{Bundle, HashAlgorithm, SignatureContent};

use crate::{ImageDigest, Payload};

/// `type` of a simple signing payload (containers-signature(5); cosign's own since 2023).
const SIMPLE_SIGNING: [&str; 2] = [
    "cosign container image signature",
    "atomic container signature",
];
/// Types of an in-toto statement.
const STATEMENTS: [&str; 2] = [
    "https://in-toto.io/Statement/v1",
    "https://in-toto.io/Statement/v0.1",
];
/// Type of the payload of a DSSE envelope that holds an in-toto statement.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The predicate by which cosign 3 says that an image is signed, and nothing else.
const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A payload about an image, taken apart.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) image: ImageDigest,
    pub(crate) bundle: Bundle,
    /// What is signed, if not the manifest of the image or the envelope in the bundle.
    pub(crate) simple_signing: Option<&'a [u8]>,
    /// Of an attestation.
    predicate_type: Option<String>,
}

impl<'a> Claim<'a> {
    /// Takes a payload apart. Errors: it is not about this image, or not understood.
    pub(crate) fn read(payload: &'a Payload, image: &ImageDigest) -> Result<Self, String> {
        let json = std::str::from_utf8(&payload.bundle)
            .map_err(|_| "the bundle is not UTF-8".to_owned())?;
        let bundle = Bundle::from_json(json)
            .map_err(|error| format!("it is no Sigstore bundle: {error}"))?;
        let simple_signing = payload.simple_signing.as_deref();
        let predicate_type = match (&bundle.content, simple_signing) {
            (SignatureContent::MessageSignature(_), Some(signed)) => {
                simple_signing_is_about(signed, image)?;
                None
            }
            (SignatureContent::MessageSignature(signature), None) => {
                let digest = (signature.message_digest.as_ref())
                    .filter(|digest| digest.algorithm == HashAlgorithm::Sha2256)
                    .ok_or("it does not say of what it is the signature")?;
                if !image.is_sha256(digest.digest.as_bytes()) {
                    return Err("it is the signature of something else".to_owned());
                }
                None
            }
            (SignatureContent::DsseEnvelope(_), Some(_)) => {
                return Err("it holds two things that are signed".to_owned());
            }
            (SignatureContent::DsseEnvelope(envelope), None) => {
                if envelope.payload_type != IN_TOTO {
                    return Err("the envelope does not hold an in-toto statement".to_owned());
                }
                Some(statement_about(envelope.payload.as_bytes(), image)?)
            }
            _ => return Err("it holds something that is not known".to_owned()),
        };
        Ok(Self {
            image: *image,
            bundle,
            simple_signing,
            predicate_type,
        })
    }

    /// Whether it says that the image is signed.
    pub(crate) fn is_signature(&self) -> bool {
        match self.predicate_type.as_deref() {
            Some(predicate_type) => predicate_type == COSIGN_SIGN,
            None => true,
        }
    }

    /// Whether it is an attestation of this type.
    pub(crate) fn is_attestation(&self, predicate_type: &str) -> bool {
        self.predicate_type.as_deref() == Some(predicate_type)
    }
}

#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

fn simple_signing_is_about(signed: &[u8], image: &ImageDigest) -> Result<(), String> {
    let signed: SimpleSigning = serde_json::from_slice(signed)
        .map_err(|error| format!("what is signed is no simple signing payload: {error}"))?;
    let critical = signed.critical;
    if !SIMPLE_SIGNING.contains(&critical.r#type.as_str()) {
        return Err("what is signed is no simple signing payload: its type is unknown".to_owned());
    }
    match critical.image.digest == image.to_string() {
        true => Ok(()),
        false => Err("it is the signature of another image".to_owned()),
    }
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    r#type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

/// The predicate type of a statement about an image.
fn statement_about(statement: &[u8], image: &ImageDigest) -> Result<String, String> {
    let statement: Statement = serde_json::from_slice(statement)
        .map_err(|error| format!("the envelope holds no in-toto statement: {error}"))?;
    if !STATEMENTS.contains(&statement.r#type.as_str()) {
        return Err("the envelope holds a statement of an unknown type".to_owned());
    }
    let is_about = |subject: &Subject| {
        let digest = subject.digest.get("sha256");
        digest.is_some_and(|digest| image.is_hex(digest))
    };
    match statement.subject.iter().any(is_about) {
        true => Ok(statement.predicate_type),
        false => Err("it is a statement about another image".to_owned()),
    }
}
