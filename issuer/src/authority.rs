//! The signing authority of the trust domain: its keys ([`Keyring`]), its CA
//! certificates, and the one function that signs leaves.
//!
//! What it promises:
//! - a leaf never outlives the authority that signed it;
//! - a leaf has exactly one URI SAN, with a path, in the authority's own trust
//!   domain (norms X5-01, X5-04, X5-09);
//! - a private key exists in memory here and encrypted in the store, nowhere
//!   else: it is never logged, printed or sent.

pub mod certificate;
pub mod csr;
pub mod keyfile;
pub mod keyring;
pub mod lifecycle;
pub mod rotation;
pub mod signer;
pub mod stored;
pub mod subject;
pub mod token_key;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use identity::{IdError, Serial, SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

pub use self::{
    certificate::{LeafTemplate, Validity},
    csr::{CsrError, KeyKind, SubjectKey},
    keyring::{KeyFacts, Keyring, KeyringError, SignedToken},
    lifecycle::Lifecycle,
    rotation::{NotWithdrawn, Rotation, RotationError},
    signer::{CertSigner, EcdsaP256Signer, SignError},
    stored::{KeyState, KeyUse, StoredAuthority},
    subject::Subject,
    token_key::TokenKey,
};

/// Life of a key, unless `ca_ttl` says otherwise (DESIGN section 5).
pub const CA_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far `not_before` lies in the past, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(60);

/// The authority that signs.
pub struct Authority {
    trust_domain: TrustDomain,
    signer: Arc<dyn CertSigner>,
    certificate: CertificateDer<'static>,
    facts: certificate::IssuerFacts,
}

impl Authority {
    /// Makes a new key and a self-signed CA certificate that begins to be valid
    /// [`BACKDATE`] before `now` and ends `life` after it. Also returns the key as
    /// PKCS#8, to be sealed.
    pub fn create(
        trust_domain: &TrustDomain,
        now: SystemTime,
        life: Duration,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), AuthorityError> {
        let (signer, pkcs8) = EcdsaP256Signer::generate()?;
        let validity = Validity {
            not_before: whole_seconds(now - BACKDATE),
            not_after: whole_seconds(now + life),
        };
        let certificate = certificate::sign_ca(&signer, trust_domain, validity)?;
        let authority = Self::new(trust_domain.clone(), certificate, Arc::new(signer))?;
        Ok((authority, pkcs8))
    }

    /// The authority of a stored certificate and its key.
    pub fn load(
        trust_domain: &TrustDomain,
        certificate: CertificateDer<'static>,
        pkcs8: &[u8],
    ) -> Result<Self, AuthorityError> {
        let signer = EcdsaP256Signer::from_pkcs8(pkcs8)?;
        Self::new(trust_domain.clone(), certificate, Arc::new(signer))
    }

    fn new(
        trust_domain: TrustDomain,
        certificate: CertificateDer<'static>,
        signer: Arc<dyn CertSigner>,
    ) -> Result<Self, AuthorityError> {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&certificate)
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        if parsed.public_key().raw != signer.public_key_der() {
            return Err(AuthorityError::KeyMismatch);
        }
        let facts = certificate::IssuerFacts::read(&certificate)?;
        Ok(Self {
            trust_domain,
            signer,
            certificate,
            facts,
        })
    }

    /// The trust domain that it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Its CA certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// End of validity of the CA certificate.
    pub fn not_after(&self) -> SystemTime {
        self.facts.validity.not_after
    }

    /// Subject key identifier, lower-case hex: how the store names this key.
    pub fn key_id(&self) -> String {
        hex::encode(&self.facts.key_id)
    }

    /// `sha256:<hex>` of the CA's SubjectPublicKeyInfo, which agents pin.
    pub fn pin(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.signer.public_key_der());
        format!("sha256:{}", hex::encode(hash))
    }

    /// Certifies the key of another CA of this trust domain; see [`Keyring::own_chain`].
    pub fn certify(&self, other: &Self) -> Result<CertificateDer<'static>, AuthorityError> {
        certificate::sign_cross(
            self.signer.as_ref(),
            &self.facts,
            &self.trust_domain,
            &other.facts,
            other.signer.public_key_der(),
        )
    }

    /// The validity of a leaf that is asked for `now` with a life of `ttl`:
    /// backdated, and cut at the end of the authority's own.
    pub fn validity(&self, now: SystemTime, ttl: Duration) -> Result<Validity, AuthorityError> {
        let own = self.facts.validity;
        let now = whole_seconds(now);
        if now >= own.not_after {
            return Err(AuthorityError::Expired {
                not_after: own.not_after,
            });
        }
        Ok(Validity {
            not_before: (now - BACKDATE).max(own.not_before),
            not_after: (now + ttl).min(own.not_after),
        })
    }

    /// Signs a leaf.
    pub fn sign_leaf(&self, template: &LeafTemplate<'_>) -> Result<Leaf, AuthorityError> {
        if template.id.trust_domain_name() != self.trust_domain.as_str()
            || template.id.is_trust_domain()
        {
            return Err(AuthorityError::NotALeafId(template.id.clone()));
        }
        let mut serial = [0u8; 16];
        loop {
            aws_lc_rs::rand::fill(&mut serial).map_err(|_| SignError)?;
            // 128 random bits whose encoding keeps its length: neither a
            // leading zero byte nor a sign byte.
            if (0x01..0x80).contains(&serial[0]) {
                break;
            }
        }
        let certificate = signer::timed("x509", || {
            certificate::sign_leaf(self.signer.as_ref(), &self.facts, template, &serial)
        })?;
        Ok(Leaf {
            certificate,
            serial: Serial::from_bytes(&serial),
            validity: template.validity,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

/// A signed leaf.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// Its serial number.
    pub serial: Serial,
    /// Its validity.
    pub validity: Validity,
}

/// Why the authority cannot be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key's validity has ended, or would before that of what it is to sign.
    #[error(
        "the signing key ended at {}: it should have been rotated long before, see the log for what kept the issuer from it",
        rfc3339(*.not_after)
    )]
    Expired {
        /// When it ended.
        not_after: SystemTime,
    },
    /// A leaf was asked for with an id that no leaf may carry.
    #[error("{0} is not an id of a workload in this trust domain")]
    NotALeafId(SpiffeId),
    /// The stored key is not that of the stored certificate.
    #[error(
        "the stored CA key does not belong to the stored CA certificate: restore both from one backup"
    )]
    KeyMismatch,
    /// The stored certificate cannot be read.
    #[error("the stored CA certificate cannot be read: {0}")]
    Certificate(String),
    /// A certificate cannot be put together.
    #[error("cannot build the certificate: {0}")]
    Build(String),
    /// WIT-SVIDs are not switched on.
    #[error("WIT-SVIDs are switched off: start the issuer with --wit")]
    WitOff,
    /// The trust domain, or a subject, is not usable.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The key does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl From<x509_cert::builder::Error> for AuthorityError {
    fn from(error: x509_cert::builder::Error) -> Self {
        Self::Build(error.to_string())
    }
}

impl From<der::Error> for AuthorityError {
    fn from(error: der::Error) -> Self {
        Self::Build(error.to_string())
    }
}

/// X.509 times have whole seconds, and so have ours in tokens.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds(time))
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// `2026-11-21T20:53:01Z`.
pub fn rfc3339(time: SystemTime) -> String {
    time::OffsetDateTime::from(whole_seconds(time))
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| "an unrepresentable time".to_owned())
}

#[cfg(test)]
mod tests;
