//! Until when a set is good, read from a document in it: what an earlier process wrote is
//! known by nothing else.
//!
//! Nothing is verified here: who may write where a set lies may as well remove it.

use std::time::SystemTime;

use identity::{Leaf, jwt_svid};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::keystore::{self, Password};
use crate::aws::profile;

/// A file of a set that says until when the set is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    /// Its name in the set.
    pub name: String,
    /// What it is.
    pub form: DatedForm,
}

/// What such a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatedForm {
    /// Leaf and intermediates, PEM.
    ChainPem,
    /// Key and chain, PKCS#12, under this password.
    Pkcs12(Password),
    /// Key and chain, JKS.
    Jks,
    /// A JWT-SVID.
    Jwt,
    /// Credentials of AWS, in this profile.
    AwsProfile(String),
}

impl Dated {
    /// A file of this name.
    pub fn new(name: impl Into<String>, form: DatedForm) -> Self {
        Self {
            name: name.into(),
            form,
        }
    }

    /// The end of the document's life; `None`: these contents do not say it.
    pub fn expires(&self, contents: &[u8]) -> Option<SystemTime> {
        match &self.form {
            DatedForm::ChainPem => leaf(&CertificateDer::from_pem_slice(contents).ok()?),
            DatedForm::Pkcs12(password) => leaf(&keystore::pkcs12_leaf(contents, password)?),
            DatedForm::Jks => leaf(&keystore::jks_leaf(contents)?),
            DatedForm::Jwt => jwt_svid::claimed_expiry(text(contents)?.trim()),
            DatedForm::AwsProfile(name) => {
                let expires = profile::expiration(text(contents)?, name)?;
                Some(OffsetDateTime::parse(expires, &Rfc3339).ok()?.into())
            }
        }
    }
}

fn leaf(der: &CertificateDer<'_>) -> Option<SystemTime> {
    Leaf::parse(der).ok().map(|leaf| leaf.not_after())
}

fn text(contents: &[u8]) -> Option<&str> {
    std::str::from_utf8(contents).ok()
}

#[cfg(test)]
mod tests;
