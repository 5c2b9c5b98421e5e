//! Certificate authorities for tests: real keys, real signatures, made in microseconds.
//!
//! Only behind the feature `testing`; a product never makes certificates with it. It panics
//! where a test would: on input that makes no certificate.
#![allow(clippy::expect_used)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use time::OffsetDateTime;

mod token;

pub use token::TokenSigner;

use crate::{Serial, SpiffeId, TrustBundle, TrustDomain, X509Svid};

/// How far certificates are backdated.
const BACKDATE: Duration = Duration::from_secs(60);

/// A certificate authority of one trust domain.
#[derive(Clone)]
pub struct TestCa {
    trust_domain: TrustDomain,
    /// This CA first, then those above it, the root last.
    line: Vec<CertificateDer<'static>>,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

impl TestCa {
    /// A root CA (ECDSA P-256, URI SAN of the trust domain), valid for a day.
    ///
    /// # Panics
    /// If `trust_domain` is not one.
    pub fn new(trust_domain: &str) -> Self {
        Self::with(trust_domain, |_| {})
    }

    /// A root CA whose certificate is as `edit` leaves it.
    ///
    /// # Panics
    /// If `trust_domain` is not one, or the certificate cannot be made.
    pub fn with(trust_domain: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let trust_domain = TrustDomain::parse(trust_domain).expect("a trust domain");
        let mut params = ca_params(&trust_domain, "root");
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a CA certificate");
        Self {
            trust_domain,
            line: vec![certificate.into()],
            issuer: Arc::new(Issuer::new(params, key)),
        }
    }

    /// A CA under this one; chains of its SVIDs include its certificate, [`Self::bundle`]
    /// stays that of the root.
    pub fn intermediate(&self) -> Self {
        self.intermediate_with(|_| {})
    }

    /// As [`Self::intermediate`], with its certificate as `edit` leaves it.
    ///
    /// # Panics
    /// If the certificate cannot be made.
    pub fn intermediate_with(&self, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(&self.trust_domain, "intermediate");
        params.use_authority_key_identifier_extension = true;
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a CA certificate");
        let mut line = vec![certificate.into()];
        line.extend(self.line.iter().cloned());
        Self {
            trust_domain: self.trust_domain.clone(),
            line,
            issuer: Arc::new(Issuer::new(params, key)),
        }
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.line[0]
    }

    /// A bundle of the root.
    ///
    /// # Panics
    /// If the root was made such that no bundle takes it.
    pub fn bundle(&self) -> TrustBundle {
        let root = self.line.last().expect("a root").clone();
        TrustBundle::new(self.trust_domain.clone(), vec![root]).expect("a bundle")
    }

    /// An SVID for `path` (beginning with `/`), valid from a minute ago until `ttl` from now.
    ///
    /// # Panics
    /// If `path` makes no SPIFFE ID.
    pub fn svid(&self, path: &str, ttl: Duration) -> X509Svid {
        let now = SystemTime::now();
        self.svid_window(path, now - BACKDATE, now + ttl)
    }

    /// An SVID with this validity (whole seconds).
    ///
    /// # Panics
    /// If `path` makes no SPIFFE ID.
    pub fn svid_window(
        &self,
        path: &str,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> X509Svid {
        let (chain, key) = self.issue(path, |params| {
            params.not_before = OffsetDateTime::from(not_before);
            params.not_after = OffsetDateTime::from(not_after);
        });
        X509Svid::new(chain, key).expect("an X509-SVID")
    }

    /// Chain and key for `path` as `edit` leaves the leaf; nothing about it is checked.
    ///
    /// # Panics
    /// If no certificate can be made of it.
    pub fn issue(
        &self,
        path: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let chain = self.issue_for(&key, path, edit);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (chain, PrivateKeyDer::Pkcs8(key))
    }

    /// Chain for `path` and a key of the caller's.
    ///
    /// # Panics
    /// If no certificate can be made of it.
    pub fn issue_for(
        &self,
        key: &impl rcgen::PublicKeyData,
        path: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let id = format!("spiffe://{}{path}", self.trust_domain);
        let mut params = leaf_params(&id);
        edit(&mut params);
        let leaf = params.signed_by(key, &*self.issuer).expect("a certificate");
        let mut chain = vec![leaf.into()];
        chain.extend(self.line[..self.line.len() - 1].iter().cloned());
        chain
    }

    /// A revocation list of this CA.
    ///
    /// # Panics
    /// If the CA may not sign lists.
    pub fn revoke<'a>(
        &self,
        serials: impl IntoIterator<Item = &'a Serial>,
    ) -> CertificateRevocationListDer<'static> {
        let now = OffsetDateTime::now_utc();
        let params = CertificateRevocationListParams {
            this_update: now - BACKDATE,
            next_update: now + Duration::from_secs(24 * 3600),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials
                .into_iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(serial.as_bytes()),
                    revocation_time: now - BACKDATE,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&*self.issuer).expect("a CRL");
        list.into()
    }
}

impl std::fmt::Debug for TestCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCa")
            .field("trust_domain", &self.trust_domain)
            .field("certificates", &self.line.len())
            .finish_non_exhaustive()
    }
}

/// The leaf that a good issuer makes.
fn leaf_params(id: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::from_secs(3600);
    params.serial_number = Some(random_serial());
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

fn ca_params(trust_domain: &TrustDomain, role: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let serial = random_serial();
    let mut params = CertificateParams::default();
    // The serial in the name keeps two CAs of one role apart.
    let mut name = DistinguishedName::new();
    let number = Serial::from_bytes(&serial.to_bytes());
    name.push(
        DnType::CommonName,
        format!("{trust_domain} {role} {number}"),
    );
    params.distinguished_name = name;
    params.serial_number = Some(serial);
    params.not_before = now - Duration::from_secs(3600);
    params.not_after = now + Duration::from_secs(24 * 3600);
    params.subject_alt_names = vec![uri(SpiffeId::as_str(&trust_domain.id()))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A URI SAN.
///
/// # Panics
/// If it is not ASCII.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn random_serial() -> SerialNumber {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    // Positive, and of full length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
