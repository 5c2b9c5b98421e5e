//! Signatures, and who judges them.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use ::config::Path;
use aws_lc_rs::digest::{Context, SHA256};
use hashlink::LruCache;
use policy::{Attributes, Value};
use proto::{admin::v1 as admin, issue::v1 as pb};
use sigstore_policy::{
    Authority, IdentitySource, ImageDigest, MatcherSource, Part, Payload, Policy, PolicySource,
    Requirements,
};

use super::{HASH, tell};

const IMAGE_DIGEST: &str = "workload.sigstore.image_digest";
/// Of how many images a policy remembers the verdict.
const REMEMBERED: usize = 1024;

/// What an agent found signed for an image.
#[derive(Debug, Default)]
pub struct Signatures {
    payloads: Vec<Payload>,
    /// SHA-256 over all of them in hex; empty without any.
    hash: String,
}

impl Signatures {
    /// Takes what an agent sent. Errors: it is more than is looked at.
    pub fn new(sent: Vec<pb::ImageSignature>) -> Result<Self, String> {
        let payloads: Vec<_> = sent
            .into_iter()
            .map(|one| Payload {
                bundle: one.bundle_json,
                simple_signing: Some(one.simple_signing).filter(|signed| !signed.is_empty()),
            })
            .collect();
        Payload::check_bounds(&payloads).map_err(|error| error.to_string())?;
        let hash = match payloads.is_empty() {
            true => String::new(),
            false => hash_of(&payloads),
        };
        Ok(Self { payloads, hash })
    }

    /// Says of the workload what there is, in place of what the agent says.
    pub fn tell(&self, attributes: &mut Attributes) {
        tell(attributes, self.payloads.len(), &self.hash);
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }
}

fn hash_of(payloads: &[Payload]) -> String {
    let mut context = Context::new(&SHA256);
    for payload in payloads {
        for part in [
            payload.bundle.as_slice(),
            payload.simple_signing.as_deref().unwrap_or_default(),
        ] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    hex::encode(context.finish())
}

/// Judges by one policy.
pub struct Judge {
    policy: Policy,
    verdicts: Mutex<LruCache<(ImageDigest, String), Result<(), String>>>,
}

impl Judge {
    /// Reads a policy, which stands at a place. Errors: every mistake, with its place; none,
    /// if a half of it is missing.
    pub fn new(spec: &admin::SigstorePolicySpec, at: &Path) -> Result<Self, Vec<(Path, String)>> {
        let Some(source) = source(spec, at)? else {
            return Err(Vec::new());
        };
        match Policy::new(&source) {
            Ok(policy) => Ok(Self {
                policy,
                verdicts: Mutex::new(LruCache::new(REMEMBERED)),
            }),
            Err(mistakes) => Err(mistakes
                .into_iter()
                .map(|mistake| (place(at, mistake.part), mistake.message))
                .collect()),
        }
    }

    /// Whether what is signed for the image that the attributes name satisfies the policy.
    /// Errors: why not.
    pub fn verdict(&self, attributes: &Attributes, signatures: &Signatures) -> Result<(), String> {
        let Some(image) = text(attributes, IMAGE_DIGEST) else {
            let why = "the agent names no image for which it looked for signatures";
            return Err(why.to_owned());
        };
        let image: ImageDigest = image
            .parse()
            .map_err(|error| format!("the agent names the image {image:?}: {error}"))?;
        if text(attributes, HASH).unwrap_or_default() != signatures.hash {
            let why = "the signatures that the attributes tell of are not here: give them along";
            return Err(why.to_owned());
        }
        let key = (image, signatures.hash.clone());
        let kept = self.verdicts().get(&key).cloned();
        if let Some(verdict) = kept {
            return verdict;
        }
        let verdict = (self.policy.check(&image, &signatures.payloads))
            .map_err(|unsatisfied| unsatisfied.to_string());
        self.verdicts().insert(key, verdict.clone());
        verdict
    }

    fn verdicts(
        &self,
    ) -> std::sync::MutexGuard<'_, LruCache<(ImageDigest, String), Result<(), String>>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Judge").field(&self.policy).finish()
    }
}

fn text<'a>(attributes: &'a Attributes, path: &str) -> Option<&'a str> {
    match attributes.get(path) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The policy as it is written; `None` if a half of it is missing.
fn source(
    spec: &admin::SigstorePolicySpec,
    at: &Path,
) -> Result<Option<PolicySource>, Vec<(Path, String)>> {
    use admin::sigstore_policy_spec::Authority as Wire;
    let (Some(authority), Some(wanted)) = (&spec.authority, &spec.requirements) else {
        return Ok(None);
    };
    let authority = match authority {
        Wire::Key(key) => Authority::Key(key.public.clone()),
        Wire::Keyless(keyless) => Authority::Keyless {
            identities: identities(&keyless.identities, at)?,
            trusted_roots: keyless.trusted_roots.clone(),
        },
    };
    let attestations = wanted.attestations.iter();
    let requirements = match (wanted.artifact_signature, wanted.attestations.is_empty()) {
        (true, _) => Requirements::Signature,
        (false, true) => return Ok(None),
        (false, false) => Requirements::Attestations(
            attestations
                .map(|attestation| attestation.predicate_type.clone())
                .collect(),
        ),
    };
    Ok(Some(PolicySource {
        authority,
        requirements,
    }))
}

fn identities(
    wire: &[admin::SigstoreIdentity],
    at: &Path,
) -> Result<Vec<IdentitySource>, Vec<(Path, String)>> {
    use admin::sigstore_identity::{IssuerMatcher, SubjectMatcher};
    let at = at.key("keyless").key("identities");
    let mut mistakes = Vec::new();
    let mut identities = Vec::with_capacity(wire.len());
    for (number, identity) in wire.iter().enumerate() {
        let issuer = (identity.issuer_matcher.as_ref()).map(|matcher| match matcher {
            IssuerMatcher::Issuer(text) => MatcherSource::Exact(text.clone()),
            IssuerMatcher::IssuerRegex(text) => MatcherSource::Pattern(text.clone()),
        });
        let subject = (identity.subject_matcher.as_ref()).map(|matcher| match matcher {
            SubjectMatcher::Subject(text) => MatcherSource::Exact(text.clone()),
            SubjectMatcher::SubjectRegex(text) => MatcherSource::Pattern(text.clone()),
        });
        let mut missing =
            |keys: &str| mistakes.push((at.index(number), format!("{keys} is missing")));
        match (issuer, subject) {
            (Some(issuer), Some(subject)) => identities.push(IdentitySource { issuer, subject }),
            (None, _) => missing("`issuer` or `issuer_regex`"),
            (_, None) => missing("`subject` or `subject_regex`"),
        }
    }
    match mistakes.is_empty() {
        true => Ok(identities),
        false => Err(mistakes),
    }
}

fn place(at: &Path, part: Part) -> Path {
    let identities = at.key("keyless").key("identities");
    let roots = at.key("keyless").key("trusted_roots");
    let attestations = at.key("requirements").key("attestations");
    match part {
        Part::Key => at.key("key").key("public"),
        Part::Identities => identities,
        Part::Issuer(number) | Part::Subject(number) => identities.index(number),
        Part::TrustedRoots => roots,
        Part::TrustedRoot(number) => roots.index(number),
        Part::Attestations => attestations,
        Part::Attestation(number) => attestations.index(number).key("predicate_type"),
    }
}
