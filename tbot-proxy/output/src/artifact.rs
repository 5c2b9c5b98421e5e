//! What is written: named files made from identity documents.
//!
//! Pure functions, documents in, bytes out. Where they go is the matter of a
//! [`Destination`](crate::Destination).

use std::{collections::BTreeMap, fmt, time::SystemTime};

use zeroize::Zeroizing;

mod expiry;
pub mod keystore;
mod x509;

pub use expiry::{Dated, DatedForm};
pub use x509::{Format, X509Form, x509};

use crate::file_set::is_set_name;

/// The files of one set, all made from documents of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// In no particular order, names unique.
    pub files: Vec<Artifact>,
    /// Of which document it was made; `None`: of none that has an issue date.
    pub issued: Option<Issued>,
}

/// Of two sets of one identity the newer is the one whose document was issued later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// When, by the clock of its issuer.
    pub at: SystemTime,
    /// When it expires.
    pub until: SystemTime,
    /// Whose it is: a SPIFFE ID.
    pub id: String,
}

/// A file. Its contents are wiped when it is dropped, and hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Name, or `folder/name`.
    pub name: String,
    /// Contents.
    pub contents: Zeroizing<Vec<u8>>,
}

impl Artifact {
    /// A file of this name.
    pub fn new(name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            contents: Zeroizing::new(contents.into()),
        }
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.contents.len())
    }
}

impl Artifacts {
    /// `jwt_svid`: a JWT-SVID in compact form, nothing after it.
    pub fn jwt(token: &str, issued: Option<Issued>) -> Self {
        Self {
            files: vec![Artifact::new(JWT_SVID, token)],
            issued,
        }
    }

    /// `bundle_map.json`: every trust bundle by its trust domain.
    pub fn bundle_map(bundles: &identity::TrustBundleSet) -> Self {
        Self {
            files: vec![Artifact::new(BUNDLE_MAP, bundles.to_map_json())],
            issued: None,
        }
    }

    /// Contents of the file of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let file = self.files.iter().find(|file| file.name == name)?;
        Some(&file.contents)
    }

    /// With the names that `names` gives in place of the usual ones.
    #[must_use]
    pub fn renamed(mut self, names: &FileNames) -> Self {
        for file in &mut self.files {
            if let Some(name) = names.0.get(&file.name) {
                file.name.clone_from(name);
            }
        }
        self
    }
}

/// Leaf and intermediates, PEM.
pub const SVID: &str = "svid.pem";
/// The private key, PKCS#8 PEM.
pub const SVID_KEY: &str = "svid_key.pem";
/// CA certificates of the own trust domain, PEM.
pub const BUNDLE: &str = "bundle.pem";
/// Revocation lists of the own trust domain, PEM; there if there are any.
pub const CRL: &str = "svid_crl.pem";
/// All trust bundles by trust domain, JSON.
pub const BUNDLE_MAP: &str = "bundle_map.json";
/// Key and chain, PKCS#12.
pub const PKCS12_KEYS: &str = "svid.p12";
/// CA certificates of the own trust domain, PKCS#12.
pub const PKCS12_TRUST: &str = "truststore.p12";
/// Key and chain, JKS.
pub const JKS_KEYS: &str = "svid.jks";
/// CA certificates of the own trust domain, JKS.
pub const JKS_TRUST: &str = "truststore.jks";
/// JWT-SVID.
pub const JWT_SVID: &str = "jwt_svid";
/// Shared credentials file of AWS.
pub const AWS_CREDENTIALS: &str = "aws_credentials";

/// Whether a file of some output is called so, unless it is renamed.
pub fn is_usual(name: &str) -> bool {
    X509_FILES.contains(&name) || [JWT_SVID, AWS_CREDENTIALS].contains(&name)
}

/// Files of `workload-identity-x509`, in whatever format, without those of other trust
/// domains.
pub const X509_FILES: [&str; 9] = [
    SVID,
    SVID_KEY,
    BUNDLE,
    CRL,
    BUNDLE_MAP,
    PKCS12_KEYS,
    PKCS12_TRUST,
    JKS_KEYS,
    JKS_TRUST,
];

/// Other names for files, by their usual ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileNames(BTreeMap<String, String>);

impl FileNames {
    /// `names` by usual name, of which `known` are all.
    ///
    /// # Errors
    ///
    /// A usual name is not known, a new one leads out of the set, or two files would have one name.
    pub fn new(
        names: impl IntoIterator<Item = (String, String)>,
        known: &[&str],
    ) -> Result<Self, FileNameError> {
        let names: BTreeMap<_, _> = names.into_iter().collect();
        for (usual, name) in &names {
            if !known.contains(&usual.as_str()) {
                return Err(FileNameError::Unknown {
                    name: usual.clone(),
                    known: known.join(", "),
                });
            }
            if !is_set_name(name) || name.split('/').next() == Some("federated") {
                return Err(FileNameError::Bad { name: name.clone() });
            }
        }
        let mut all: Vec<&str> = known
            .iter()
            .map(|usual| names.get(*usual).map_or(*usual, String::as_str))
            .collect();
        all.sort_unstable();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FileNameError::Twice {
                name: pair[0].to_owned(),
            });
        }
        Ok(Self(names))
    }

    /// The names that are not the usual ones: usual, new.
    pub fn others(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.0.iter();
        names.map(|(usual, new)| (usual.as_str(), new.as_str()))
    }

    /// The name in force for a usual one.
    pub fn of<'a>(&'a self, usual: &'a str) -> &'a str {
        self.0.get(usual).map_or(usual, String::as_str)
    }
}

/// Why names of files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// There is no such file.
    #[error("`{name}` is no file of this output: {known}")]
    Unknown {
        /// The usual name.
        name: String,
        /// All that there are.
        known: String,
    },
    /// It would lead out of the set, or into the folder of federated bundles.
    #[error(
        "`{name}` cannot be the name of a file: a name, or folder/name other than `federated`, of which no part begins with `..`"
    )]
    Bad {
        /// The name.
        name: String,
    },
    /// Two files would have it.
    #[error("two files would be called `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests;
