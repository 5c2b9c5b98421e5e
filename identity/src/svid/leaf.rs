//! The leaf certificate of an X509-SVID.
//!
//! Two strengths. *Validator* rules ([`Leaf::parse`]) are those that X509-SVID 5.2 and
//! section 4 make everyone check on a peer's certificate. *Issuer* rules
//! (`parse_issued`) add what an issuer must do but a validator need not enforce (critical
//! flags, an explicit cA=FALSE): we hold our own SVIDs to them, because rust-spiffe and
//! py-spiffe refuse leaves without them, and stay open to peers of looser issuers.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::certificate::X509Certificate;

use super::{Place, Serial, SvidError};
use crate::{
    SpiffeId,
    certificate::{self, Window},
};

/// What a leaf certificate says, its rules checked; not who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    id: SpiffeId,
    serial: Serial,
    window: Window,
    spki: SubjectPublicKeyInfoDer<'static>,
}

impl Leaf {
    /// Reads a leaf and applies the validator rules: exactly one URI SAN (X5-02) that is
    /// a SPIFFE ID (X5-25) with a path (X5-26); not a CA (X5-23); KeyUsage with
    /// digitalSignature (X5-17) and without keyCertSign and cRLSign (X5-24); both TLS
    /// purposes if ExtendedKeyUsage is there (X5-20).
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let certificate = certificate::parse(der).map_err(malformed)?;
        Self::read(&certificate)
    }

    /// As [`Self::parse`], and with the rules for issuers: explicit BasicConstraints
    /// (X5-13), critical KeyUsage (X5-15), critical SAN if the subject is empty (X5-05).
    pub(super) fn parse_issued(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let certificate = certificate::parse(der).map_err(malformed)?;
        let leaf = Self::read(&certificate)?;
        leaf.check_issuer_rules(&certificate)?;
        Ok(leaf)
    }

    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Start of validity (included).
    pub fn not_before(&self) -> SystemTime {
        self.window.not_before
    }

    /// End of validity (included).
    pub fn not_after(&self) -> SystemTime {
        self.window.not_after
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &SubjectPublicKeyInfoDer<'static> {
        &self.spki
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    fn read(certificate: &X509Certificate<'_>) -> Result<Self, SvidError> {
        let id = read_id(certificate)?;
        check_not_authority(certificate, &id)?;
        check_key_usage(certificate, &id)?;
        check_extended_key_usage(certificate, &id)?;
        Ok(Self {
            id,
            serial: Serial::from_bytes(certificate.raw_serial()),
            window: Window::of(certificate),
            spki: SubjectPublicKeyInfoDer::from(certificate.public_key().raw.to_vec()),
        })
    }

    fn check_issuer_rules(&self, certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
        let id = || self.id.clone();
        if !matches!(certificate.basic_constraints(), Ok(Some(_))) {
            return Err(SvidError::NoBasicConstraints { id: id() });
        }
        if !matches!(certificate.key_usage(), Ok(Some(usage)) if usage.critical) {
            return Err(SvidError::KeyUsageNotCritical { id: id() });
        }
        let subject_is_empty = certificate.subject().iter().next().is_none();
        let san_is_critical =
            matches!(certificate.subject_alternative_name(), Ok(Some(names)) if names.critical);
        if subject_is_empty && !san_is_critical {
            return Err(SvidError::SanNotCritical { id: id() });
        }
        Ok(())
    }
}

/// X5-01, X5-02, X5-04, X5-25, X5-26. Other kinds of SAN are left alone (X5-03).
fn read_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let uris = certificate::uri_names(certificate).map_err(malformed)?;
    let [uri] = uris.as_slice() else {
        return Err(SvidError::UriNames { count: uris.len() });
    };
    let uri = uri.ok_or_else(|| malformed("its URI SAN is not ASCII text".to_owned()))?;
    let id = SpiffeId::parse(uri).map_err(SvidError::Id)?;
    if id.is_trust_domain() {
        return Err(SvidError::NoPath { id });
    }
    Ok(id)
}

/// X5-11, X5-13, X5-23.
fn check_not_authority(certificate: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), SvidError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|error| malformed(format!("its basicConstraints cannot be read: {error}")))?;
    if constraints.is_some_and(|it| it.value.ca) {
        return Err(SvidError::LeafIsCa { id: id.clone() });
    }
    Ok(())
}

/// X5-15, X5-17, X5-18, X5-24.
fn check_key_usage(certificate: &X509Certificate<'_>, id: &SpiffeId) -> Result<(), SvidError> {
    let usage = certificate
        .key_usage()
        .map_err(|error| malformed(format!("its keyUsage cannot be read: {error}")))?
        .ok_or_else(|| SvidError::NoKeyUsage { id: id.clone() })?
        .value;
    let forbidden = if usage.key_cert_sign() {
        Some("keyCertSign")
    } else if usage.crl_sign() {
        Some("cRLSign")
    } else {
        None
    };
    if let Some(usage) = forbidden {
        return Err(SvidError::LeafSigns {
            id: id.clone(),
            usage,
        });
    }
    if !usage.digital_signature() {
        return Err(SvidError::NoDigitalSignature { id: id.clone() });
    }
    Ok(())
}

/// X5-19, X5-20. `anyExtendedKeyUsage` alone does not count: the norm wants both by name.
fn check_extended_key_usage(
    certificate: &X509Certificate<'_>,
    id: &SpiffeId,
) -> Result<(), SvidError> {
    let Some(usage) = certificate
        .extended_key_usage()
        .map_err(|error| malformed(format!("its extendedKeyUsage cannot be read: {error}")))?
    else {
        return Ok(());
    };
    let missing = match (usage.value.server_auth, usage.value.client_auth) {
        (true, true) => return Ok(()),
        (false, true) => "serverAuth",
        (true, false) => "clientAuth",
        (false, false) => "serverAuth and clientAuth",
    };
    Err(SvidError::ExtendedKeyUsage {
        id: id.clone(),
        missing,
    })
}

fn malformed(reason: String) -> SvidError {
    SvidError::Malformed {
        place: Place(0),
        reason,
    }
}
