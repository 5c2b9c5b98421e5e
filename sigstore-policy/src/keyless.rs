//! Identities as authority: a certificate authority vouched for who signed, for a few
//! minutes, and logs keep what was signed when.

use sigstore_verify::{
    VerificationPolicy, Verifier,
    trust_root::TrustedRoot,
    types::{Artifact, Bundle},
};

use crate::{claim::Claim, policy::Identity};

/// Longest issuer or subject that is compared, in bytes.
const MAX_NAME: usize = 2048;

/// A certificate authority with its logs and clocks.
pub(crate) struct Root {
    verifier: Verifier,
    /// It names transparency logs: an entry in one of them is demanded.
    has_logs: bool,
    /// It names certificate transparency logs: a certificate must be in one of them.
    has_certificate_logs: bool,
}

impl Root {
    /// Reads a trusted root (`application/vnd.dev.sigstore.trustedroot+json`).
    pub(crate) fn from_json(json: &str) -> Result<Self, String> {
        let root = TrustedRoot::from_json(json)
            .map_err(|error| format!("it is no trusted root: {error}"))?;
        if root.certificate_authorities.is_empty() {
            return Err("the trusted root names no certificate authority".to_owned());
        }
        if root.tlogs.is_empty() && root.timestamp_authorities.is_empty() {
            let why = "the trusted root names neither a transparency log nor a timestamp \
                       authority: nothing says when something was signed";
            return Err(why.to_owned());
        }
        let verifier = Verifier::new(&root)
            .map_err(|error| format!("the trusted root cannot be used: {error}"))?;
        Ok(Self {
            verifier,
            has_logs: !root.tlogs.is_empty(),
            has_certificate_logs: !root.ctlogs.is_empty(),
        })
    }

    /// Whether one of these identities signed what is claimed.
    fn verify(&self, claim: &Claim<'_>, identities: &[Identity]) -> Result<(), String> {
        let mut policy = VerificationPolicy::any_identity();
        if !self.has_certificate_logs {
            policy = policy.skip_sct();
        }
        if !self.has_logs || has_promises_only(&claim.bundle)? {
            policy = policy.skip_tlog_unsafe();
        }
        let artifact = match claim.simple_signing {
            Some(signed) => Artifact::from_blob(signed),
            None => Artifact::from_digest(claim.image.to_sha256()),
        };
        let verified = self.verifier.verify(artifact, &claim.bundle, &policy);
        let verified = verified.map_err(|error| error.to_string())?;
        if !verified.certificate_verified() || verified.verified_timestamps().is_empty() {
            return Err("its certificate was not verified".to_owned());
        }
        let subject = verified.identity().map(|subject| subject.as_str());
        let (Some(subject), Some(issuer)) = (subject, verified.issuer()) else {
            return Err("its certificate does not say who signed".to_owned());
        };
        if subject.len() > MAX_NAME || issuer.len() > MAX_NAME {
            return Err("its certificate names somebody too long".to_owned());
        }
        let is_named = |identity: &Identity| {
            identity.issuer.matches(issuer) && identity.subject.matches(subject)
        };
        match identities.iter().any(is_named) {
            true => Ok(()),
            false => Err(format!(
                "it is signed by {subject:?} as {issuer:?} knows it, whom the policy does not name"
            )),
        }
    }
}

/// Whether one of these identities signed what is claimed, as one of these roots vouches.
pub(crate) fn verify(
    roots: &[Root],
    identities: &[Identity],
    claim: &Claim<'_>,
) -> Result<(), String> {
    if claim.bundle.signing_certificate().is_none() {
        return Err("it comes without a certificate".to_owned());
    }
    let mut whys = Vec::with_capacity(roots.len());
    for root in roots {
        match root.verify(claim, identities) {
            Ok(()) => return Ok(()),
            Err(why) => whys.push(why),
        }
    }
    Err(whys.join("; or "))
}

/// Whether the entry comes with nothing but the promise of the log to include it, as
/// cosign's older form has it. The promise is signed by the log and gives the time; it
/// is verified with the time.
fn has_promises_only(bundle: &Bundle) -> Result<bool, String> {
    let entries = &bundle.verification_material.tlog_entries;
    if entries.is_empty() {
        return Err("it is in no transparency log".to_owned());
    }
    if (entries.iter())
        .any(|entry| entry.inclusion_proof.is_none() && entry.inclusion_promise.is_none())
    {
        return Err("nothing proves that it is in a transparency log".to_owned());
    }
    Ok(entries.iter().all(|entry| entry.inclusion_proof.is_none()))
}
