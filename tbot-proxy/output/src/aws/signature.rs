//! The signature of `CreateSession`: Signature Version 4 with an X.509 key.
//!
//! As SigV4, with these differences (AWS, "The IAM Roles Anywhere authentication signing
//! process"): the algorithm is `AWS4-X509-ECDSA-SHA256` (or `-RSA-`), the certificate is
//! in `X-Amz-X509` and its intermediates in `X-Amz-X509-Chain`, the credential begins with the
//! serial number in decimal, and the string to sign is signed with the key itself.

use std::{fmt::Write as _, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use identity::X509Svid;
use rustls::SignatureScheme;
use time::{OffsetDateTime, macros::format_description};

use super::CreateSession;

/// Path and query of the call.
pub const PATH: &str = "/sessions";

/// A signed call: `POST` to [`PATH`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// Names in lower case. Every one must be sent as it is.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// Why a call cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// AWS takes RSA, and ECDSA with SHA-256.
    #[error(
        "AWS takes signatures of ECDSA P-256 and RSA keys, and the key of this SVID makes neither"
    )]
    Key,
    /// The key did not sign.
    #[error("the key does not sign: {0}")]
    Refused(String),
    /// The clock is far off.
    #[error("the clock of this machine shows a time that cannot be written")]
    Clock,
}

impl CreateSession {
    /// The call to `host` (with its port, unless it is 443), signed by `svid` at `now`.
    ///
    /// # Errors
    ///
    /// The key is of a kind that AWS does not take, or does not sign.
    pub fn signed(
        &self,
        svid: &X509Svid,
        host: &str,
        now: SystemTime,
    ) -> Result<SignedRequest, SignError> {
        let body = self.body();
        let utc = OffsetDateTime::from(now);
        let at = utc
            .format(format_description!(
                "[year][month][day]T[hour][minute][second]Z"
            ))
            .map_err(|_| SignError::Clock)?;
        let day = at.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{}/rolesanywhere/aws4_request", self.region());
        let mut chain = svid.chain().iter().map(|der| STANDARD.encode(der));
        // In the order of their names, as the canonical form wants them.
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("host", host.to_owned()),
            ("x-amz-date", at.clone()),
            ("x-amz-x509", chain.next().unwrap_or_default()),
        ];
        let intermediates: Vec<_> = chain.collect();
        if !intermediates.is_empty() {
            headers.push(("x-amz-x509-chain", intermediates.join(",")));
        }
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let canonical = canonical(&headers, &names, &body);
        let (algorithm, signer) = signer(svid)?;
        let to_sign = format!(
            "{algorithm}\n{at}\n{scope}\n{}",
            sha256(canonical.as_bytes())
        );
        let signature = signer
            .sign(to_sign.as_bytes())
            .map_err(|error| SignError::Refused(error.to_string()))?;
        headers.push((
            "authorization",
            format!(
                "{algorithm} Credential={}/{scope}, SignedHeaders={names}, Signature={}",
                decimal(svid.serial().as_bytes()),
                hex::encode(&signature)
            ),
        ));
        Ok(SignedRequest { headers, body })
    }
}

/// The request in canonical form.
fn canonical(headers: &[(&str, String)], names: &str, body: &[u8]) -> String {
    let mut text = format!("POST\n{PATH}\n\n");
    for (name, value) in headers {
        // No value of ours has white space.
        _ = writeln!(text, "{name}:{value}");
    }
    _ = write!(text, "\n{names}\n{}", sha256(body));
    text
}

fn signer(svid: &X509Svid) -> Result<(&'static str, Box<dyn rustls::sign::Signer>), SignError> {
    let key = &svid.certified_key().key;
    let schemes = [
        (
            "AWS4-X509-ECDSA-SHA256",
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ),
        ("AWS4-X509-RSA-SHA256", SignatureScheme::RSA_PKCS1_SHA256),
    ];
    schemes
        .into_iter()
        .find_map(|(name, scheme)| Some((name, key.choose_scheme(&[scheme])?)))
        .ok_or(SignError::Key)
}

fn sha256(data: &[u8]) -> String {
    hex::encode(digest(&SHA256, data).as_ref())
}

/// A number of any length, from bytes with the highest first.
fn decimal(bytes: &[u8]) -> String {
    let mut digits = vec![0_u8];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            let value = u32::from(*digit) * 256 + carry;
            // Less than ten.
            *digit = u8::try_from(value % 10).unwrap_or_default();
            carry = value / 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).unwrap_or_default());
            carry /= 10;
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect()
}

#[cfg(test)]
mod tests;
