//! `sigstore_policy` on the wire.

use std::sync::Arc;

use ::config::Path;
use proto::admin::v1 as pb;

use super::check::Check;
use crate::{
    resources::{SigstorePolicySpec, Spec},
    signatures::Judge,
};

/// Reads `spec`. What the two halves hold is checked where it is used.
pub(super) fn read(check: &mut Check, at: &Path, spec: pb::SigstorePolicySpec) -> Option<Spec> {
    if spec.authority.is_none() {
        let message = "who must have signed is missing: write `key` or `keyless`";
        check.refuse(at, message);
    }
    let at_requirements = at.key("requirements");
    let wanted = spec.requirements.clone().unwrap_or_default();
    match (wanted.artifact_signature, wanted.attestations.is_empty()) {
        (true, true) | (false, false) => {}
        (false, true) => {
            let message = "what must be signed is missing: write `artifact_signature: true` or `attestations`";
            check.refuse(&at_requirements, message);
        }
        (true, false) => {
            let message = "`artifact_signature` and `attestations` stand side by side: write a \
                           policy for each, and ask for both";
            check.refuse(&at_requirements, message);
        }
    }
    match Judge::new(&spec, at) {
        Ok(judge) => Some(Spec::SigstorePolicy(SigstorePolicySpec {
            judge: Arc::new(judge),
            written: spec,
        })),
        Err(mistakes) => {
            for (place, message) in mistakes {
                check.refuse(&place, message);
            }
            None
        }
    }
}
