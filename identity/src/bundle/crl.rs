//! Revocation lists of a bundle.
//!
//! webpki finds a list by its issuer's *name* and then insists on its signature. During a
//! CA key rotation two authorities carry one name, and the list of one would make every
//! chain of the other fail. So it is settled here, once, which authorities a list may be
//! used under: those with another name (the list may be an intermediate's), and of those
//! with its name only the ones whose key signed it.

use std::sync::Arc;

use rustls_pki_types::CertificateRevocationListDer;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{error::X509Error, prelude::FromDer, revocation_list::CertificateRevocationList};

use super::Authorities;
use crate::certificate;

/// A revocation list, indexed by serial number.
#[derive(Clone)]
pub(crate) struct Crl {
    pub(crate) list: Arc<CertRevocationList<'static>>,
    /// In step with the authorities: whether the list may be used under that one.
    usable_under: Arc<[bool]>,
}

impl Crl {
    pub(super) fn new(
        der: &CertificateRevocationListDer<'static>,
        authorities: &Authorities,
    ) -> Result<Self, String> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| format!("it is not a usable CRL: {error}"))?;
        let (_, parsed) = CertificateRevocationList::from_der(der)
            .map_err(|error| format!("it is not a DER CRL: {error}"))?;
        let usable_under = authorities
            .certificates
            .iter()
            .map(|der| {
                let authority = certificate::parse(der)?;
                if authority.subject().as_raw() != parsed.issuer().as_raw() {
                    return Ok(true);
                }
                Ok(match parsed.verify_signature(authority.public_key()) {
                    // An algorithm that only webpki knows: let it decide.
                    Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
                    Err(_) => false,
                })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self {
            list: Arc::new(CertRevocationList::Owned(list)),
            usable_under,
        })
    }

    pub(crate) fn is_usable_under(&self, authority: usize) -> bool {
        self.usable_under.get(authority).copied().unwrap_or(false)
    }
}
