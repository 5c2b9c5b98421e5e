//! `workload-identity-x509`: an SVID and its trust bundles.
//!
//! | file | contents |
//! |---|---|
//! | `svid.pem` | leaf and intermediates |
//! | `svid_key.pem` | its key, PKCS#8 |
//! | `bundle.pem` | CA certificates of the own trust domain |
//! | `svid_crl.pem` | its revocation lists, if there are any |
//! | `federated/<td>.pem` | CA certificates of each other trust domain |
//! | `bundle_map.json` | all trust bundles, by trust domain |
//! | `svid.p12`, `truststore.p12` | for Java and Windows, PKCS#12 |
//! | `svid.jks`, `truststore.jks` | for old Java, JKS |
//!
//! A trust store holds the authorities of the own trust domain only: software that reads
//! one cannot tell which authority may vouch for which trust domain (SPIFFE FE-07). Those
//! of each other trust domain are beside it, `federated/<td>.p12` and `.jks`.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use identity::{TrustBundle, TrustBundleSet, X509Svid};

use super::{
    Artifact, Artifacts, BUNDLE, BUNDLE_MAP, CRL, Issued, JKS_KEYS, JKS_TRUST, PKCS12_KEYS,
    PKCS12_TRUST, SVID, SVID_KEY,
    keystore::{self, KeystoreError, Password, TrustedCertificate},
};

/// How documents are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// PEM (RFC 7468).
    Pem,
    /// PKCS#12 (RFC 7292): AES-256 and HMAC-SHA-256, as Java writes it since 8u301 and 16.
    Pkcs12,
    /// JKS, the format of Java before 9. Its encryption is weak: the directory protects it.
    Jks,
}

/// In which formats, and what keystores are locked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Form<'a> {
    /// At least one.
    pub formats: &'a BTreeSet<Format>,
    /// Needed for PKCS#12 and JKS.
    pub password: Option<&'a Password>,
}

/// The files of an SVID and its trust bundles.
///
/// # Errors
///
/// A keystore without a password, or what its encoder refuses.
pub fn x509(
    svid: &X509Svid,
    bundles: &TrustBundleSet,
    form: &X509Form<'_>,
) -> Result<Artifacts, KeystoreError> {
    let mut files = vec![Artifact::new(BUNDLE_MAP, bundles.to_map_json())];
    for format in form.formats {
        match format {
            Format::Pem => pem(svid, bundles, &mut files),
            Format::Pkcs12 => {
                let password = form.password.ok_or(KeystoreError::NoPassword)?;
                files.push(Artifact {
                    name: PKCS12_KEYS.to_owned(),
                    contents: keystore::pkcs12_keys(svid, password)?,
                });
                trust_stores(svid, bundles, PKCS12_TRUST, "p12", &mut files, |trusted| {
                    keystore::pkcs12_trust(trusted, password)
                })?;
            }
            Format::Jks => {
                let password = form.password.ok_or(KeystoreError::NoPassword)?;
                files.push(Artifact {
                    name: JKS_KEYS.to_owned(),
                    contents: keystore::jks_keys(svid, password)?,
                });
                trust_stores(svid, bundles, JKS_TRUST, "jks", &mut files, |trusted| {
                    keystore::jks_trust(trusted, svid.not_before(), password)
                })?;
            }
        }
    }
    Ok(Artifacts {
        files,
        issued: Some(Issued {
            at: svid.not_before(),
            until: svid.not_after(),
            id: svid.id().to_string(),
        }),
    })
}

fn pem(svid: &X509Svid, bundles: &TrustBundleSet, files: &mut Vec<Artifact>) {
    files.push(Artifact::new(SVID, svid.chain_pem()));
    files.push(Artifact::new(SVID_KEY, svid.key_pem().as_bytes()));
    for bundle in bundles.iter() {
        if is_own(svid, bundle) {
            files.push(Artifact::new(BUNDLE, bundle.to_pem()));
            if !bundle.crls().is_empty() {
                files.push(Artifact::new(CRL, crls_pem(bundle)));
            }
        } else {
            let name = format!("federated/{}.pem", bundle.trust_domain());
            files.push(Artifact::new(name, bundle.to_pem()));
        }
    }
}

/// One trust store for each bundle.
fn trust_stores(
    svid: &X509Svid,
    bundles: &TrustBundleSet,
    own: &str,
    extension: &str,
    files: &mut Vec<Artifact>,
    encode: impl Fn(&[TrustedCertificate<'_>]) -> Result<zeroize::Zeroizing<Vec<u8>>, KeystoreError>,
) -> Result<(), KeystoreError> {
    for bundle in bundles.iter() {
        let name = if is_own(svid, bundle) {
            own.to_owned()
        } else {
            format!("federated/{}.{extension}", bundle.trust_domain())
        };
        let trusted: Vec<_> = bundle
            .x509_authorities()
            .iter()
            .enumerate()
            .map(|(number, der)| TrustedCertificate {
                alias: format!("{}-{number}", bundle.trust_domain()),
                der,
            })
            .collect();
        files.push(Artifact {
            name,
            contents: encode(&trusted)?,
        });
    }
    Ok(())
}

fn is_own(svid: &X509Svid, bundle: &TrustBundle) -> bool {
    bundle.trust_domain().as_str() == svid.id().trust_domain_name()
}

/// Revocation lists as concatenated PEM.
fn crls_pem(bundle: &TrustBundle) -> String {
    let mut text = String::new();
    for crl in bundle.crls() {
        text.push_str("-----BEGIN X509 CRL-----\n");
        for line in STANDARD.encode(crl).as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END X509 CRL-----\n");
    }
    text
}
