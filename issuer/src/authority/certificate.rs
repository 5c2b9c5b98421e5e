//! The shape of our certificates: SPIFFE X509-SVID section 4 and Appendix A.

use std::{net::IpAddr, time::SystemTime};

use aws_lc_rs::digest;
use der::{
    Decode, Encode, Sequence,
    asn1::{AnyRef, BitStringRef, Ia5String, OctetString},
    oid::{AssociatedOid, ObjectIdentifier},
};
use identity::{SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;
use spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
};
use x509_cert::{
    Certificate, TbsCertificate,
    builder::{Builder, CertificateBuilder, Result as BuilderResult, profile::BuilderProfile},
    ext::{
        Extension, ToExtension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
            SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    serial_number::SerialNumber,
    time::{Time, Validity as X509Validity},
};

use super::{
    AuthorityError, CertSigner, KeyKind, SignError, Subject, SubjectKey, subject::ca_name,
};
use crate::resources::DnsName;

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const JOIN_ATTRIBUTES: ObjectIdentifier = ObjectIdentifier::new_unwrap(proto::JOIN_ATTRIBUTES_OID);
/// RFC 5280 Appendix A: ub-common-name.
const COMMON_NAME_MAX: usize = 64;

/// From when to when, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    fn to_x509(self) -> Result<X509Validity, AuthorityError> {
        Ok(X509Validity::new(
            Time::try_from(self.not_before)?,
            Time::try_from(self.not_after)?,
        ))
    }
}

/// What is to be in a leaf. [`LeafTemplate::new`] makes the barest one; the rest is
/// added by struct update.
#[derive(Debug)]
pub struct LeafTemplate<'a> {
    /// The only URI SAN.
    pub id: &'a SpiffeId,
    /// Whom it is for.
    pub key: &'a SubjectKey,
    /// From when to when.
    pub validity: Validity,
    /// DNS SANs.
    pub dns_sans: &'a [DnsName],
    /// IP SANs.
    pub ip_sans: &'a [IpAddr],
    /// The subject; `None` or an empty one makes the SAN critical (X5-05).
    pub subject: Option<&'a Subject>,
    /// Encoded `tbot.join.v1.JoinAttributes`, for bot certificates.
    pub join_attributes: Option<Vec<u8>>,
}

impl<'a> LeafTemplate<'a> {
    /// With an id, a key and a validity, and nothing else.
    pub fn new(id: &'a SpiffeId, key: &'a SubjectKey, validity: Validity) -> Self {
        Self {
            id,
            key,
            validity,
            dns_sans: &[],
            ip_sans: &[],
            subject: None,
            join_attributes: None,
        }
    }
}

/// What leaves need to know of the CA certificate above them.
#[derive(Debug)]
pub(super) struct IssuerFacts {
    /// The subject, as it is encoded there.
    subject: Name,
    /// Subject key identifier.
    pub(super) key_id: Vec<u8>,
    /// From when to when.
    pub(super) validity: Validity,
}

impl IssuerFacts {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, AuthorityError> {
        let certificate = Certificate::from_der(certificate)?;
        let tbs = certificate.tbs_certificate();
        let (_, key_id) = tbs
            .get_extension::<SubjectKeyIdentifier>()?
            .ok_or_else(|| AuthorityError::Certificate("it has no subject key id".to_owned()))?;
        Ok(Self {
            subject: tbs.subject().clone(),
            key_id: key_id.0.as_bytes().to_vec(),
            validity: Validity {
                not_before: tbs.validity().not_before.to_system_time(),
                not_after: tbs.validity().not_after.to_system_time(),
            },
        })
    }
}

/// Signs the CA certificate with its own key: the trust domain's id as its only
/// SAN, keyCertSign and cRLSign, no path length, no EKU (X5-06 to X5-08, X5-16,
/// X5-21).
pub(super) fn sign_ca(
    signer: &dyn CertSigner,
    trust_domain: &TrustDomain,
    validity: Validity,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut common_name = format!("{trust_domain} SPIFFE CA");
    if common_name.len() > COMMON_NAME_MAX {
        common_name = "SPIFFE CA".to_owned();
    }
    let public_key = SubjectPublicKeyInfoOwned::from_der(signer.public_key_der())?;
    let key_id = key_id(&public_key)?;
    let name = ca_name(&common_name, &hex::encode(key_id.as_bytes()))?;
    let profile = Shape {
        issuer: name.clone(),
        subject: name,
        extensions: ca_extensions(trust_domain, &key_id)?,
    };
    sign(signer, profile, &ca_serial()?, validity, public_key)
}

/// Certifies the key of another CA of the trust domain, under the name that its own
/// certificate has: whoever trusts only this one finds a path to what that one signs.
pub(super) fn sign_cross(
    signer: &dyn CertSigner,
    issuer: &IssuerFacts,
    trust_domain: &TrustDomain,
    other: &IssuerFacts,
    other_key_der: &[u8],
) -> Result<CertificateDer<'static>, AuthorityError> {
    let public_key = SubjectPublicKeyInfoOwned::from_der(other_key_der)?;
    let mut extensions = ca_extensions(trust_domain, &key_id(&public_key)?)?;
    extensions.push(extension(false, &authority_key(issuer)?)?);
    let validity = Validity {
        not_before: issuer.validity.not_before.max(other.validity.not_before),
        not_after: issuer.validity.not_after.min(other.validity.not_after),
    };
    let profile = Shape {
        issuer: issuer.subject.clone(),
        subject: other.subject.clone(),
        extensions,
    };
    sign(signer, profile, &ca_serial()?, validity, public_key)
}

fn ca_extensions(
    trust_domain: &TrustDomain,
    key_id: &OctetString,
) -> Result<Vec<Extension>, AuthorityError> {
    let key_usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    let basic_constraints = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    let uri = GeneralName::UniformResourceIdentifier(Ia5String::new(trust_domain.id().as_str())?);
    Ok(vec![
        extension(true, &basic_constraints)?,
        extension(true, &key_usage)?,
        extension(false, &SubjectKeyIdentifier(key_id.clone()))?,
        extension(false, &SubjectAltName(vec![uri]))?,
    ])
}

fn ca_serial() -> Result<[u8; 16], SignError> {
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| SignError)?;
    serial[0] = (serial[0] & 0x3f) | 0x40;
    Ok(serial)
}

fn authority_key(issuer: &IssuerFacts) -> Result<AuthorityKeyIdentifier, AuthorityError> {
    Ok(AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(issuer.key_id.as_slice())?),
        ..Default::default()
    })
}

/// Signs a leaf: one URI SAN (critical if the subject is empty), cA=false written out,
/// both EKUs (X5-01 to X5-20), and a key usage that fits the key: digitalSignature, and
/// for RSA keyEncipherment too, which TLS 1.2 with RSA key exchange wants. EC keys get no
/// keyAgreement: only static ECDH would use it, and no TLS stack of today has that.
pub(super) fn sign_leaf(
    signer: &dyn CertSigner,
    issuer: &IssuerFacts,
    template: &LeafTemplate<'_>,
    serial: &[u8],
) -> Result<CertificateDer<'static>, AuthorityError> {
    let public_key = SubjectPublicKeyInfoOwned::from_der(template.key.spki_der())?;
    let mut names = vec![GeneralName::UniformResourceIdentifier(Ia5String::new(
        template.id.as_str(),
    )?)];
    for name in template.dns_sans {
        names.push(GeneralName::DnsName(Ia5String::new(name.as_str())?));
    }
    for address in template.ip_sans {
        let octets = match address {
            IpAddr::V4(address) => OctetString::new(address.octets())?,
            IpAddr::V6(address) => OctetString::new(address.octets())?,
        };
        names.push(GeneralName::IpAddress(octets));
    }
    let subject = match template.subject {
        Some(subject) => subject.to_name()?,
        None => Name::default(),
    };
    let key_usage = match template.key.kind() {
        KeyKind::Rsa => KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment,
        KeyKind::Ec | KeyKind::Ed25519 => KeyUsages::DigitalSignature.into(),
    };
    let basic_constraints = BasicConstraints {
        ca: false,
        path_len_constraint: None,
    };
    let mut extensions = vec![
        extension(true, &basic_constraints)?,
        extension(true, &KeyUsage(key_usage))?,
        extension(false, &ExtendedKeyUsage(vec![SERVER_AUTH, CLIENT_AUTH]))?,
        extension(false, &SubjectKeyIdentifier(key_id(&public_key)?))?,
        extension(false, &authority_key(issuer)?)?,
        extension(subject.is_empty(), &SubjectAltName(names))?,
    ];
    if let Some(attributes) = &template.join_attributes {
        let value = OctetString::new(attributes.as_slice())?;
        extensions.push(Extension {
            extn_id: JOIN_ATTRIBUTES,
            critical: false,
            extn_value: OctetString::new(value.to_der()?)?,
        });
    }
    let profile = Shape {
        issuer: issuer.subject.clone(),
        subject,
        extensions,
    };
    sign(signer, profile, serial, template.validity, public_key)
}

/// RFC 7093 section 2, method 1: the first 160 bits of the SHA-256 of the key.
fn key_id(public_key: &SubjectPublicKeyInfoOwned) -> Result<OctetString, AuthorityError> {
    let hash = digest::digest(&digest::SHA256, public_key.subject_public_key.raw_bytes());
    Ok(OctetString::new(&hash.as_ref()[..20])?)
}

fn extension<E>(critical: bool, value: &E) -> Result<Extension, AuthorityError>
where
    E: AssociatedOid + Encode,
{
    Ok((critical, value).to_extension(&Name::default(), &[])?)
}

fn sign(
    signer: &dyn CertSigner,
    shape: Shape,
    serial: &[u8],
    validity: Validity,
    public_key: SubjectPublicKeyInfoOwned,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let key = SignerKey(signer);
    let serial = SerialNumber::new(serial)?;
    let mut builder = CertificateBuilder::new(shape, serial, validity.to_x509()?, public_key)?;
    let to_be_signed = builder.finalize(&key)?;
    let signature = signer.sign(&to_be_signed)?;
    let certificate = Signed {
        to_be_signed: AnyRef::from_der(&to_be_signed)?,
        algorithm: signer.algorithm(),
        signature: BitStringRef::from_bytes(&signature)?,
    };
    Ok(CertificateDer::from(certificate.to_der()?))
}

/// RFC 5280 4.1: what was signed stands in it as it is, byte for byte.
#[derive(Sequence)]
struct Signed<'a> {
    to_be_signed: AnyRef<'a>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitStringRef<'a>,
}

/// Exactly these names and extensions, in this order.
struct Shape {
    issuer: Name,
    subject: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Shape {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _subject_key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> BuilderResult<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

/// A [`CertSigner`] as the builder wants to see it.
struct SignerKey<'a>(&'a dyn CertSigner);

#[derive(Clone)]
struct SignerPublicKey(Vec<u8>);

impl signature::Keypair for SignerKey<'_> {
    type VerifyingKey = SignerPublicKey;

    fn verifying_key(&self) -> SignerPublicKey {
        SignerPublicKey(self.0.public_key_der().to_vec())
    }
}

impl DynSignatureAlgorithmIdentifier for SignerKey<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(self.0.algorithm())
    }
}

impl EncodePublicKey for SignerPublicKey {
    fn to_public_key_der(&self) -> spki::Result<der::Document> {
        Ok(der::Document::try_from(self.0.as_slice())?)
    }
}
