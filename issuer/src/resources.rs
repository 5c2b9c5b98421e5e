//! What the issuer is told to hold: bots, roles, tokens, workload identities,
//! locks, foreign trust domains, policies of signatures.
//!
//! One typed form, with the only validation there is; the command line reads it
//! from YAML ([`yaml`]) and the server from the wire ([`wire`]), and both refuse
//! the same things with the same words. Shapes follow Teleport's (DESIGN D9).

mod claims;
mod labels;
mod names;
mod specs;
pub mod wire;
pub mod yaml;

use std::{collections::BTreeMap, fmt, str::FromStr, time::SystemTime};

pub(crate) use self::labels::check_label;
pub use self::{
    claims::ClaimsTemplate,
    labels::LabelSelector,
    names::{DnsName, NameError, ResourceName, SpiffePath, TokenSecret},
    specs::{
        BotSpec, JwtAlgorithm, LockSpec, LockTarget, RoleSpec, SigstorePolicySpec,
        SpiffeFederationSpec, SubjectTemplate, SvidKind, TokenSpec, TtlBounds, TtlLimits,
        WorkloadIdentitySpec,
    },
    wire::{FieldMistake, InvalidResource},
};

use std::time::Duration;

/// Longest life that an X509-SVID may have.
pub const X509_TTL_CAP: Duration = Duration::from_secs(14 * 24 * 3600);
/// Longest life that a JWT-SVID or a WIT-SVID may have.
pub const JWT_TTL_CAP: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a join token.
pub const TOKEN_TTL_CAP: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a bot certificate.
pub const BOT_TTL_CAP: Duration = Duration::from_secs(24 * 3600);

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A named machine account.
    Bot,
    /// What its holders may have.
    Role,
    /// A way to join as a bot.
    Token,
    /// An identity that can be issued.
    WorkloadIdentity,
    /// Who is refused.
    Lock,
    /// Another trust domain.
    SpiffeFederation,
    /// What must be signed for a container image.
    SigstorePolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Bot,
        Self::Role,
        Self::Token,
        Self::WorkloadIdentity,
        Self::Lock,
        Self::SpiffeFederation,
        Self::SigstorePolicy,
    ];

    /// As written in YAML and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Role => "role",
            Self::Token => "token",
            Self::WorkloadIdentity => "workload_identity",
            Self::Lock => "lock",
            Self::SpiffeFederation => "spiffe_federation",
            Self::SigstorePolicy => "sigstore_policy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let known = Self::ALL.map(Self::as_str);
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            let why = match ::config::did_you_mean(text, known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("it is one of {}", known.join(", ")),
            };
            NameError::new("kind", text, why)
        })
    }
}

/// One resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// What all kinds have.
    pub metadata: Metadata,
    /// What this kind has.
    pub spec: Spec,
}

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match &self.spec {
            Spec::Bot(_) => Kind::Bot,
            Spec::Role(_) => Kind::Role,
            Spec::Token(_) => Kind::Token,
            Spec::WorkloadIdentity(_) => Kind::WorkloadIdentity,
            Spec::Lock(_) => Kind::Lock,
            Spec::SpiffeFederation(_) => Kind::SpiffeFederation,
            Spec::SigstorePolicy(_) => Kind::SigstorePolicy,
        }
    }

    /// Whether it says the same as `other`, whatever the revision.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let [mut one, mut other] = [self, other].map(wire::to_wire);
        for resource in [&mut one, &mut other] {
            if let Some(metadata) = &mut resource.metadata {
                metadata.revision = 0;
            }
        }
        one == other
    }
}

/// What every resource has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Unique in its kind.
    pub name: ResourceName,
    /// Roles select `workload_identity` resources by them.
    pub labels: BTreeMap<String, String>,
    /// 0: not stored yet, or to be replaced whatever its revision is.
    pub revision: u64,
    /// End of life (tokens and locks only).
    pub expires: Option<SystemTime>,
    /// For people; at most 1024 bytes.
    pub description: String,
}

impl Metadata {
    /// A name and nothing else.
    pub fn named(name: ResourceName) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            revision: 0,
            expires: None,
            description: String::new(),
        }
    }
}

/// What a kind has.
#[derive(Debug, Clone)]
pub enum Spec {
    /// Kind `bot`.
    Bot(BotSpec),
    /// Kind `role`.
    Role(RoleSpec),
    /// Kind `token`.
    Token(TokenSpec),
    /// Kind `workload_identity`.
    WorkloadIdentity(Box<WorkloadIdentitySpec>),
    /// Kind `lock`.
    Lock(LockSpec),
    /// Kind `spiffe_federation`.
    SpiffeFederation(SpiffeFederationSpec),
    /// Kind `sigstore_policy`.
    SigstorePolicy(SigstorePolicySpec),
}

#[cfg(test)]
mod tests;
