//! A policy, as it is written and as it is used.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

use crate::{
    ImageDigest, Payload,
    claim::Claim,
    keyless::{self, Root},
    public_key::PublicKey,
};

/// Most trusted roots of a policy.
const MAX_ROOTS: usize = 8;
/// Most identities of a policy.
const MAX_IDENTITIES: usize = 64;
/// Most attestations that a policy demands.
const MAX_ATTESTATIONS: usize = 16;
/// Longest text in a policy, trusted roots and keys aside, in bytes.
const MAX_TEXT: usize = 1024;
/// Largest program of a pattern, in bytes.
const MAX_PATTERN: usize = 64 * 1024;
/// Longest reason that is told of one payload, in bytes.
const MAX_WHY: usize = 512;

/// A policy as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Who must have signed.
    pub authority: Authority,
    /// What.
    pub requirements: Requirements,
}

/// Who must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// Who has the private key to this public one (PEM).
    Key(String),
    /// One of these identities, as one of these trusted roots (JSON) vouches.
    Keyless {
        /// Who.
        identities: Vec<IdentitySource>,
        /// Trusted roots.
        trusted_roots: Vec<String>,
    },
}

/// What must be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirements {
    /// The image.
    Signature,
    /// Attestations about the image, one of each of these predicate types.
    Attestations(Vec<String>),
}

/// Who may sign, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySource {
    /// Who knows the subject: the URL of an OpenID Connect provider.
    pub issuer: MatcherSource,
    /// An e-mail address or a URI.
    pub subject: MatcherSource,
}

/// How a text is compared, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatcherSource {
    /// It is this.
    Exact(String),
    /// The whole of it matches this regular expression.
    Pattern(String),
}

/// Who may sign.
pub(crate) struct Identity {
    pub(crate) issuer: Matcher,
    pub(crate) subject: Matcher,
}

/// How a text is compared.
pub(crate) enum Matcher {
    Exact(String),
    Pattern(Regex),
}

impl Matcher {
    fn new(source: &MatcherSource) -> Result<Self, String> {
        let (MatcherSource::Exact(text) | MatcherSource::Pattern(text)) = source;
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(format!("1 to {MAX_TEXT} bytes are accepted"));
        }
        match source {
            MatcherSource::Exact(exact) => Ok(Self::Exact(exact.clone())),
            MatcherSource::Pattern(pattern) => {
                let no_pattern =
                    |error| format!("{pattern:?} is not a regular expression: {error}");
                // By itself first, so that no bracket of it can close the one around.
                Regex::new(pattern).map_err(no_pattern)?;
                RegexBuilder::new(&format!("^(?:{pattern})$"))
                    .size_limit(MAX_PATTERN)
                    .nest_limit(32)
                    .build()
                    .map(Self::Pattern)
                    .map_err(no_pattern)
            }
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// A policy, ready to be asked.
pub struct Policy {
    authority: Compiled,
    requirements: Requirements,
}

enum Compiled {
    Key(PublicKey),
    Keyless {
        roots: Vec<Root>,
        identities: Vec<Identity>,
    },
}

impl Policy {
    /// Reads a policy. Every mistake is told.
    pub fn new(source: &PolicySource) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let authority = compile(&source.authority, &mut mistakes);
        check_requirements(&source.requirements, &mut mistakes);
        match authority {
            Some(authority) if mistakes.is_empty() => Ok(Self {
                authority,
                requirements: source.requirements.clone(),
            }),
            _ => Err(mistakes),
        }
    }

    /// Whether what stands beside an image satisfies the policy. Errors: why it does not.
    pub fn check(&self, image: &ImageDigest, payloads: &[Payload]) -> Result<(), Unsatisfied> {
        let failed = |wanted: &str, whys| Unsatisfied {
            wanted: wanted.to_owned(),
            whys,
        };
        if let Err(error) = Payload::check_bounds(payloads) {
            return Err(failed("signatures", vec![error.to_string()]));
        }
        let mut whys = Vec::new();
        let claims: Vec<_> = (1..)
            .zip(payloads)
            .filter_map(|(number, payload)| match Claim::read(payload, image) {
                Ok(claim) => Some((number, claim)),
                Err(why) => {
                    whys.push(told(number, &why));
                    None
                }
            })
            .collect();
        match &self.requirements {
            Requirements::Signature => {
                let wanted = "no signature of the image counts";
                self.one_of(&claims, |claim| claim.is_signature(), &mut whys)
                    .then_some(())
                    .ok_or_else(|| failed(wanted, whys))
            }
            Requirements::Attestations(predicate_types) => {
                for predicate_type in predicate_types {
                    let is_it = |claim: &Claim<'_>| claim.is_attestation(predicate_type);
                    if !self.one_of(&claims, is_it, &mut whys) {
                        let wanted = format!("no attestation of type {predicate_type:?} counts");
                        return Err(failed(&wanted, whys));
                    }
                }
                Ok(())
            }
        }
    }

    fn verify(&self, claim: &Claim<'_>) -> Result<(), String> {
        match &self.authority {
            Compiled::Key(key) => key.verify(claim),
            Compiled::Keyless { roots, identities } => keyless::verify(roots, identities, claim),
        }
    }

    /// Whether the authority signed one of the claims that are wanted.
    fn one_of(
        &self,
        claims: &[(usize, Claim<'_>)],
        is_wanted: impl Fn(&Claim<'_>) -> bool,
        whys: &mut Vec<String>,
    ) -> bool {
        for (number, claim) in claims {
            let verified = match is_wanted(claim) {
                true => self.verify(claim),
                false => Err("it says something else".to_owned()),
            };
            match verified {
                Ok(()) => return true,
                Err(why) => whys.push(told(*number, &why)),
            }
        }
        false
    }
}

fn compile(authority: &Authority, mistakes: &mut Vec<Mistake>) -> Option<Compiled> {
    match authority {
        Authority::Key(pem) => match PublicKey::from_pem(pem) {
            Ok(key) => Some(Compiled::Key(key)),
            Err(message) => {
                let part = Part::Key;
                mistakes.push(Mistake { part, message });
                None
            }
        },
        Authority::Keyless {
            identities,
            trusted_roots,
        } => {
            let mut roots = Vec::with_capacity(trusted_roots.len());
            let mut who = Vec::with_capacity(identities.len());
            for (number, json) in trusted_roots.iter().enumerate().take(MAX_ROOTS) {
                match Root::from_json(json) {
                    Ok(root) => roots.push(root),
                    Err(message) => mistakes.push(Mistake {
                        part: Part::TrustedRoot(number),
                        message,
                    }),
                }
            }
            for (number, identity) in identities.iter().enumerate().take(MAX_IDENTITIES) {
                let parts = [
                    (Part::Issuer(number), &identity.issuer),
                    (Part::Subject(number), &identity.subject),
                ];
                let [issuer, subject] = parts.map(|(part, source)| {
                    let matcher = Matcher::new(source);
                    matcher.map_err(|message| mistakes.push(Mistake { part, message }))
                });
                if let (Ok(issuer), Ok(subject)) = (issuer, subject) {
                    who.push(Identity { issuer, subject });
                }
            }
            check_count(Part::TrustedRoots, trusted_roots.len(), MAX_ROOTS, mistakes);
            check_count(Part::Identities, identities.len(), MAX_IDENTITIES, mistakes);
            Some(Compiled::Keyless {
                roots,
                identities: who,
            })
        }
    }
}

fn check_requirements(requirements: &Requirements, mistakes: &mut Vec<Mistake>) {
    let Requirements::Attestations(predicate_types) = requirements else {
        return;
    };
    let count = predicate_types.len();
    check_count(Part::Attestations, count, MAX_ATTESTATIONS, mistakes);
    for (number, predicate_type) in predicate_types.iter().enumerate() {
        if predicate_type.is_empty() || predicate_type.len() > MAX_TEXT {
            mistakes.push(Mistake {
                part: Part::Attestation(number),
                message: format!("1 to {MAX_TEXT} bytes are accepted"),
            });
        }
    }
}

fn check_count(part: Part, count: usize, most: usize, mistakes: &mut Vec<Mistake>) {
    if count == 0 || count > most {
        let message = format!("1 to {most} are accepted, not {count}");
        mistakes.push(Mistake { part, message });
    }
}

/// What is told of one payload.
fn told(number: usize, why: &str) -> String {
    format!("{number}: {}", &why[..why.floor_char_boundary(MAX_WHY)])
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("requirements", &self.requirements)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub part: Part,
    /// What.
    pub message: String,
}

/// A part of a policy. Numbers count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The public key.
    Key,
    /// The list of identities.
    Identities,
    /// The issuer of an identity.
    Issuer(usize),
    /// The subject of an identity.
    Subject(usize),
    /// The list of trusted roots.
    TrustedRoots,
    /// One of them.
    TrustedRoot(usize),
    /// The list of attestations.
    Attestations,
    /// The predicate type of one of them.
    Attestation(usize),
}

/// Why a policy is not satisfied. `Display`: what lacks, and of each payload that was looked
/// at its number, from 1, and why it does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsatisfied {
    wanted: String,
    whys: Vec<String>,
}

/// Most payloads of which it is told why they do not count.
const MAX_TOLD: usize = 4;

impl fmt::Display for Unsatisfied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wanted)?;
        if self.whys.is_empty() {
            return f.write_str(": nothing that is signed was found beside the image");
        }
        for (place, why) in self.whys.iter().take(MAX_TOLD).enumerate() {
            let between = if place == 0 { ": " } else { "; " };
            write!(f, "{between}{why}")?;
        }
        match self.whys.len().checked_sub(MAX_TOLD) {
            Some(more @ 1..) => write!(f, "; and {more} more"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Unsatisfied {}
