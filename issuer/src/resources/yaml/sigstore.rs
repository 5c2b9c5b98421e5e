//! `sigstore_policy` as YAML.

use ::config::{Fields, Free};
use proto::admin::v1 as pb;

use super::{read, shape};

/// Reads what is below `spec`.
pub(super) fn policy(fields: &mut Fields<'_>) -> pb::SigstorePolicySpec {
    use pb::sigstore_policy_spec::Authority;
    let key = fields.mapping("key", |fields| {
        let public = read::required(fields, "public");
        Some(Authority::Key(pb::SigstoreKey { public }))
    });
    let keyless = fields.mapping("keyless", |fields| {
        Some(Authority::Keyless(pb::SigstoreKeyless {
            identities: fields.each("identities", |fields| Some(identity(fields))),
            trusted_roots: fields.texts("trusted_roots"),
        }))
    });
    if fields.has("key") && fields.has("keyless") {
        let message = "`key` and `keyless` stand side by side: write one of the two";
        fields.mistake("keyless", message);
    }
    let requirements = fields.mapping("requirements", |fields| {
        Some(pb::SigstoreRequirements {
            artifact_signature: fields.boolean("artifact_signature").unwrap_or(false),
            attestations: fields.each("attestations", |fields| {
                let predicate_type = read::required(fields, "predicate_type");
                Some(pb::SigstoreAttestation { predicate_type })
            }),
        })
    });
    pb::SigstorePolicySpec {
        authority: key.or(keyless),
        requirements,
    }
}

fn identity(fields: &mut Fields<'_>) -> pb::SigstoreIdentity {
    use pb::sigstore_identity::{IssuerMatcher, SubjectMatcher};
    let mut either = |exact: &'static str, pattern: &'static str| {
        let texts = [exact, pattern].map(|key| read::text(fields, key));
        if fields.has(exact) && fields.has(pattern) {
            let message =
                format!("`{exact}` and `{pattern}` stand side by side: write one of the two");
            fields.mistake(pattern, message);
        }
        (texts, fields.has(exact), fields.has(pattern))
    };
    let ([issuer, issuer_regex], is_exact, is_pattern) = either("issuer", "issuer_regex");
    let issuer_matcher = match (is_exact, is_pattern) {
        (true, _) => Some(IssuerMatcher::Issuer(issuer)),
        (_, true) => Some(IssuerMatcher::IssuerRegex(issuer_regex)),
        _ => None,
    };
    let ([subject, subject_regex], is_exact, is_pattern) = either("subject", "subject_regex");
    let subject_matcher = match (is_exact, is_pattern) {
        (true, _) => Some(SubjectMatcher::Subject(subject)),
        (_, true) => Some(SubjectMatcher::SubjectRegex(subject_regex)),
        _ => None,
    };
    pb::SigstoreIdentity {
        issuer_matcher,
        subject_matcher,
    }
}

/// What is below `spec`.
pub(super) fn shape(policy: &pb::SigstorePolicySpec) -> shape::Fields {
    use pb::sigstore_policy_spec::Authority;
    let authority = match &policy.authority {
        None => shape::Fields::default(),
        Some(Authority::Key(key)) => shape::Fields::default()
            .fields("key", shape::Fields::default().text("public", &key.public)),
        Some(Authority::Keyless(keyless)) => {
            let identities = keyless.identities.iter().map(|one| shape_of(one).into());
            let keyless = shape::Fields::default()
                .list("identities", identities.collect())
                .texts("trusted_roots", &keyless.trusted_roots);
            shape::Fields::default().fields("keyless", keyless)
        }
    };
    let wanted = policy.requirements.clone().unwrap_or_default();
    let attestations = wanted.attestations.iter().map(|attestation| {
        shape::Fields::default()
            .text("predicate_type", &attestation.predicate_type)
            .into()
    });
    let mut requirements = shape::Fields::default();
    if wanted.artifact_signature {
        requirements = requirements.with("artifact_signature", Free::Boolean(true));
    }
    let requirements = requirements.list("attestations", attestations.collect());
    authority.fields("requirements", requirements)
}

fn shape_of(identity: &pb::SigstoreIdentity) -> shape::Fields {
    use pb::sigstore_identity::{IssuerMatcher, SubjectMatcher};
    let fields = shape::Fields::default();
    let fields = match &identity.issuer_matcher {
        None => fields,
        Some(IssuerMatcher::Issuer(text)) => fields.text("issuer", text),
        Some(IssuerMatcher::IssuerRegex(text)) => fields.text("issuer_regex", text),
    };
    match &identity.subject_matcher {
        None => fields,
        Some(SubjectMatcher::Subject(text)) => fields.text("subject", text),
        Some(SubjectMatcher::SubjectRegex(text)) => fields.text("subject_regex", text),
    }
}
