//! RFC 5280 path validation against the authorities of one bundle.
//!
//! webpki does signatures, validity, basic constraints, name constraints, critical
//! extensions and revocation. What it leaves to its caller is added here: validity and path
//! length of the authority itself, and keyCertSign of intermediates (RFC 5280 6.1.4 n).

use std::{cell::RefCell, time::SystemTime};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error as PathError, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};

use super::VerifyError;
use crate::{
    TrustBundle,
    bundle::Authorities,
    certificate::{self, CaFacts, Window},
    svid::Leaf,
    tls::signature_algorithms,
};

/// Finds a path from the leaf to an authority of `bundle`; answers with the span in which
/// every certificate on it is valid.
pub(crate) fn verify(
    der: &CertificateDer<'_>,
    leaf: &Leaf,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<Window, VerifyError> {
    check_time(leaf, now)?;
    let end_entity = EndEntityCert::try_from(der).map_err(|error| refused(leaf, &error))?;
    let attempt = Attempt {
        end_entity: &end_entity,
        leaf,
        intermediates,
        authorities: bundle.authorities(),
        algorithms: signature_algorithms(),
        now,
    };
    if bundle.parsed_crls().is_empty() {
        return attempt.run(&attempt.authorities.anchors, &[]);
    }
    // One authority at a time, each with the lists that may be used under it.
    let mut last = VerifyError::UnknownAuthority {
        id: leaf.id().clone(),
    };
    for (index, anchor) in attempt.authorities.anchors.iter().enumerate() {
        let lists: Vec<&CertRevocationList<'_>> = bundle
            .parsed_crls()
            .iter()
            .filter(|crl| crl.is_usable_under(index))
            .map(|crl| &*crl.list)
            .collect();
        match attempt.run(std::slice::from_ref(anchor), &lists) {
            Err(VerifyError::UnknownAuthority { .. }) => {}
            // Another authority with the same key must not undo a revocation.
            Err(revoked @ VerifyError::Revoked { .. }) => return Err(revoked),
            Err(error) => last = error,
            Ok(window) => return Ok(window),
        }
    }
    Err(last)
}

fn check_time(leaf: &Leaf, now: SystemTime) -> Result<(), VerifyError> {
    if now < leaf.not_before() {
        return Err(VerifyError::NotYetValid {
            id: leaf.id().clone(),
            not_before: leaf.not_before(),
        });
    }
    if now > leaf.not_after() {
        return Err(VerifyError::Expired {
            id: leaf.id().clone(),
            not_after: leaf.not_after(),
        });
    }
    Ok(())
}

struct Attempt<'a> {
    end_entity: &'a EndEntityCert<'a>,
    leaf: &'a Leaf,
    intermediates: &'a [CertificateDer<'a>],
    authorities: &'a Authorities,
    algorithms: WebPkiSupportedAlgorithms,
    now: SystemTime,
}

impl Attempt<'_> {
    fn run(
        &self,
        anchors: &[TrustAnchor<'_>],
        lists: &[&CertRevocationList<'_>],
    ) -> Result<Window, VerifyError> {
        let since_epoch = self
            .now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // webpki's own error for a path that we refuse would say less.
        let objection = RefCell::new(None);
        let accept = |path: &VerifiedPath<'_>| match self.inspect(path) {
            Ok(_) => Ok(()),
            Err(error) => {
                *objection.borrow_mut() = Some(error);
                Err(PathError::UnknownIssuer)
            }
        };
        let verified = self.end_entity.verify_for_usage(
            self.algorithms.all,
            anchors,
            self.intermediates,
            UnixTime::since_unix_epoch(since_epoch),
            PurposesOfLeafOnly,
            revocation(lists),
            Some(&accept),
        );
        match verified {
            Ok(path) => self.inspect(&path),
            Err(PathError::UnknownIssuer) => Err(objection
                .take()
                .unwrap_or_else(|| refused(self.leaf, &PathError::UnknownIssuer))),
            Err(error) => Err(refused(self.leaf, &error)),
        }
    }

    /// The rules that webpki leaves out, and the span of validity of the whole path.
    fn inspect(&self, path: &VerifiedPath<'_>) -> Result<Window, VerifyError> {
        let mut window = self.leaf.window();
        let mut intermediates = 0;
        for intermediate in path.intermediate_certificates() {
            let facts = certificate::parse(&intermediate.der())
                .and_then(|parsed| CaFacts::of(&parsed))
                .map_err(|reason| self.path_refused(reason))?;
            if facts.key_cert_sign == Some(false) {
                return Err(
                    self.path_refused("an intermediate's keyUsage lacks keyCertSign".to_owned())
                );
            }
            window = window.intersect(facts.window);
            intermediates += 1;
        }
        let authority = self.facts_of(path.anchor())?;
        if !authority.window.contains(self.now) {
            return Err(VerifyError::AuthorityOutOfValidity {
                id: self.leaf.id().clone(),
                not_before: authority.window.not_before,
                not_after: authority.window.not_after,
            });
        }
        if authority.path_len.is_some_and(|most| intermediates > most) {
            return Err(self.path_refused(format!(
                "the path has {intermediates} intermediates, more than its authority allows"
            )));
        }
        Ok(window.intersect(authority.window))
    }

    fn facts_of(&self, anchor: &TrustAnchor<'_>) -> Result<CaFacts, VerifyError> {
        // By place, not by content: a renewed authority has the same name and key.
        self.authorities
            .anchors
            .iter()
            .position(|known| std::ptr::eq(known, anchor))
            .and_then(|index| self.authorities.details.get(index))
            .map(|details| details.facts)
            .ok_or_else(|| self.path_refused("its authority is not in the bundle".to_owned()))
    }

    fn path_refused(&self, reason: String) -> VerifyError {
        VerifyError::Path {
            id: self.leaf.id().clone(),
            reason,
        }
    }
}

fn revocation<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    // No list, no options: webpki has no other way to say so.
    let options = RevocationOptionsBuilder::new(lists).ok()?;
    Some(
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .build(),
    )
}

fn refused(leaf: &Leaf, error: &PathError) -> VerifyError {
    let id = leaf.id().clone();
    match error {
        PathError::UnknownIssuer => VerifyError::UnknownAuthority { id },
        PathError::CertRevoked => VerifyError::Revoked {
            id,
            serial: leaf.serial().clone(),
        },
        error => VerifyError::Path {
            id,
            reason: error.to_string(),
        },
    }
}

/// The leaf's purposes were checked when it was parsed; those of a CA certificate restrict
/// the use of its own key, not what it may sign (RFC 5280 4.2.1.12, X5-21).
struct PurposesOfLeafOnly;

impl ExtendedKeyUsageValidator for PurposesOfLeafOnly {
    fn validate(&self, _purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), PathError> {
        Ok(())
    }
}
