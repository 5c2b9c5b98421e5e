//! cosign's older form as Sigstore bundles of version 0.1: signature, certificates and the
//! log's promise stand in annotations of a layer.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ImageSignature;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG: &str = "dev.sigstore.cosign/bundle";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.1";
/// Most certificates of a chain.
const MAX_CHAIN: usize = 8;

type Annotations = BTreeMap<String, String>;

/// A signature over a simple signing payload, the content of the layer.
///
/// # Errors
///
/// If the annotations do not hold one.
pub fn signature(signed: &[u8], annotations: &Annotations) -> Result<ImageSignature, String> {
    let signature = annotations
        .get(SIGNATURE)
        .ok_or_else(|| format!("the annotation {SIGNATURE} is missing"))?;
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": material(annotations)?,
        "messageSignature": {
            "messageDigest": {
                "algorithm": "SHA2_256",
                "digest": STANDARD.encode(digest(&SHA256, signed)),
            },
            "signature": signature,
        },
    });
    Ok(ImageSignature {
        bundle: bundle.to_string().into_bytes(),
        simple_signing: signed.to_vec(),
    })
}

/// An attestation: the content of the layer is a DSSE envelope.
///
/// # Errors
///
/// If it is none.
pub fn attestation(envelope: &[u8], annotations: &Annotations) -> Result<ImageSignature, String> {
    let envelope: Value = serde_json::from_slice(envelope)
        .map_err(|error| format!("it is no DSSE envelope: {error}"))?;
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": material(annotations)?,
        "dsseEnvelope": envelope,
    });
    Ok(ImageSignature {
        bundle: bundle.to_string().into_bytes(),
        simple_signing: Vec::new(),
    })
}

fn material(annotations: &Annotations) -> Result<Value, String> {
    let mut certificates = Vec::new();
    for name in [CERTIFICATE, CHAIN] {
        let text = annotations.get(name).map_or("", String::as_str);
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()).take(MAX_CHAIN) {
            let certificate =
                certificate.map_err(|error| format!("the annotation {name} is no PEM: {error}"))?;
            certificates.push(json!({ "rawBytes": STANDARD.encode(certificate) }));
        }
    }
    let entries = match annotations.get(LOG).filter(|text| !text.is_empty()) {
        Some(text) => vec![entry(text)?],
        None => Vec::new(),
    };
    Ok(match certificates.is_empty() {
        true => json!({ "publicKey": { "hint": "" }, "tlogEntries": entries }),
        false => json!({
            "x509CertificateChain": { "certificates": certificates },
            "tlogEntries": entries,
        }),
    })
}

/// What cosign keeps of the log's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Logged {
    signed_entry_timestamp: String,
    payload: LoggedPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoggedPayload {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    kind: String,
    api_version: String,
}

fn entry(text: &str) -> Result<Value, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the annotation {LOG}: {error}");
    let Logged {
        signed_entry_timestamp,
        payload,
    } = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let body = STANDARD
        .decode(&payload.body)
        .map_err(|error| wrong(&error))?;
    let body: Body = serde_json::from_slice(&body).map_err(|error| wrong(&error))?;
    let log_id = hex::decode(&payload.log_id).map_err(|error| wrong(&error))?;
    Ok(json!({
        "logIndex": payload.log_index.to_string(),
        "logId": { "keyId": STANDARD.encode(log_id) },
        "kindVersion": { "kind": body.kind, "version": body.api_version },
        "integratedTime": payload.integrated_time.to_string(),
        "inclusionPromise": { "signedEntryTimestamp": signed_entry_timestamp },
        "canonicalizedBody": payload.body,
    }))
}
