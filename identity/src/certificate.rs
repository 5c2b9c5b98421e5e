//! What leaf, intermediate and authority certificates have in common: one way to read
//! DER, times and key usage, so that parse and verification cannot differ.

use std::time::{Duration, SystemTime};

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time,
};

/// Reads one certificate; bytes behind it are an error.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(format!("{} bytes follow the certificate", rest.len())),
        Err(error) => Err(format!("not a DER certificate: {error}")),
    }
}

/// A validity period, both ends included (RFC 5280 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Window {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: system_time(validity.not_before),
            not_after: system_time(validity.not_after),
        }
    }

    pub(crate) fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    pub(crate) fn intersect(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

/// The values of all URI names in the SAN extension; one that is not ASCII text reads as
/// `None`, but still counts.
pub(crate) fn uri_names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<Vec<Option<&'a str>>, String> {
    const URI_TAG: u32 = 6;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its subjectAltName cannot be read: {error}"))?;
    Ok(names.map_or_else(Vec::new, |names| {
        names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(Some(*uri)),
                GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => Some(None),
                _ => None,
            })
            .collect()
    }))
}

/// What makes a certificate an authority (RFC 5280 4.2.1.9, 4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaFacts {
    pub(crate) window: Window,
    pub(crate) is_ca: bool,
    /// `None`: no KeyUsage extension.
    pub(crate) key_cert_sign: Option<bool>,
    pub(crate) path_len: Option<u32>,
}

impl CaFacts {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let constraints = certificate
            .basic_constraints()
            .map_err(|error| format!("its basicConstraints cannot be read: {error}"))?;
        let usage = certificate
            .key_usage()
            .map_err(|error| format!("its keyUsage cannot be read: {error}"))?;
        Ok(Self {
            window: Window::of(certificate),
            is_ca: constraints.as_ref().is_some_and(|it| it.value.ca),
            key_cert_sign: usage.map(|it| it.value.key_cert_sign()),
            path_len: constraints.and_then(|it| it.value.path_len_constraint),
        })
    }
}

/// Certificates (DER) as concatenated PEM (RFC 7468), in their order.
pub fn certificates_pem<D: AsRef<[u8]>>(certificates: impl IntoIterator<Item = D>) -> String {
    let mut text = String::new();
    for der in certificates {
        pem("CERTIFICATE", der.as_ref(), &mut text);
    }
    text
}

/// PEM of one section, 64 characters a line.
pub(crate) fn pem(label: &str, der: &[u8], text: &mut String) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let body = zeroize::Zeroizing::new(STANDARD.encode(der));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
}

/// How much `pem` appends at most, so that a secret is not left behind by a growing string.
pub(crate) fn pem_capacity(label: &str, der: &[u8]) -> usize {
    let body = der.len().div_ceil(3) * 4;
    body + body.div_ceil(64) + 2 * (label.len() + 20)
}
