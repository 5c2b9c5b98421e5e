//! What each kind of resource has.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use identity::{TrustBundle, TrustDomain};
use policy::{PathTemplate, Rules, Template, WorkloadReads};
use proto::admin::v1 as pb;

use super::{
    ClaimsTemplate, InvalidResource, JWT_TTL_CAP, LabelSelector, Metadata, NameError, Resource,
    ResourceName, Spec, TokenSecret, X509_TTL_CAP, wire,
};
use crate::signatures::Judge;

/// Kind `bot`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BotSpec {
    /// Names of the roles that it holds, in order, each once.
    pub roles: Vec<ResourceName>,
    /// `user.traits`: several values a name.
    pub traits: BTreeMap<String, Vec<String>>,
    /// Longest life of its bot certificates; `None`: the issuer's `bot_ttl`.
    pub max_session_ttl: Option<Duration>,
}

/// Kind `role`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoleSpec {
    /// Which workload identities its holders may have.
    pub workload_identity_labels: LabelSelector,
    /// Which they may not, whatever any role of theirs allows.
    pub deny_workload_identity_labels: LabelSelector,
}

/// Kind `token`. Its secret is shown when it is made, kept as a hash, and never
/// part of this type as read back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// The bot that joins by it.
    pub bot_name: ResourceName,
    /// The secret, on the way in.
    pub secret: Option<TokenSecret>,
}

/// Kind `workload_identity`. Templates and rules are compiled when the resource is
/// read; what templates render to is checked when it is issued.
#[derive(Debug, Clone)]
pub struct WorkloadIdentitySpec {
    /// Path of the SPIFFE ID (`spec.spiffe.id`). What it renders to may still be
    /// reserved, or too long in a trust domain: issuance refuses it then.
    pub path: PathTemplate,
    /// Told to the workload with the SVID; rendered at most 1024 bytes (WA-17);
    /// `None`: none.
    pub hint: Option<Template>,
    /// DNS subject alternative names.
    pub dns_sans: Vec<Template>,
    /// IP subject alternative names.
    pub ip_sans: Vec<Template>,
    /// Subject of the X509-SVID.
    pub subject: SubjectTemplate,
    /// Lives of X509-SVIDs.
    pub x509: TtlLimits,
    /// Lives of JWT-SVIDs.
    pub jwt: TtlLimits,
    /// Lives of WIT-SVIDs.
    pub wit: TtlLimits,
    /// How JWT-SVIDs are signed.
    pub jwt_algorithm: JwtAlgorithm,
    /// Further claims of JWT-SVIDs.
    pub jwt_extra_claims: ClaimsTemplate,
    /// Who may have it, beside the role.
    pub rules: Rules,
    /// The rules as they were written.
    pub(super) rule_texts: RuleTexts,
    /// Trust domains whose bundles go to the workload with the SVID.
    pub federates_with: Vec<TrustDomain>,
}

impl WorkloadIdentitySpec {
    /// With this path and nothing else.
    pub fn at(path: &str) -> Result<Self, InvalidResource> {
        wire::workload_identity_at(path)
    }

    /// What of a workload its rules and templates can depend on.
    pub fn workload_reads(&self) -> WorkloadReads {
        let subject = &self.subject;
        let templates = (self.hint.iter())
            .chain(&self.dns_sans)
            .chain(&self.ip_sans)
            .chain(&subject.common_name)
            .chain(&subject.organization)
            .chain(&subject.organizational_unit);
        let others = [
            self.path.workload_reads(),
            self.rules.workload_reads(),
            self.jwt_extra_claims.workload_reads(),
        ];
        templates
            .map(Template::workload_reads)
            .chain(others)
            .collect()
    }

    /// The lives that are granted for a kind of SVID.
    pub fn ttl_bounds(&self, kind: SvidKind) -> TtlBounds {
        match kind {
            SvidKind::X509 => self.x509,
            SvidKind::Jwt => self.jwt,
            SvidKind::Wit => self.wit,
        }
        .bounds(kind)
    }
}

impl From<WorkloadIdentitySpec> for Spec {
    fn from(spec: WorkloadIdentitySpec) -> Self {
        Self::WorkloadIdentity(Box::new(spec))
    }
}

/// Rules as they are kept and shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RuleTexts {
    pub(super) allow: Vec<pb::Rule>,
    pub(super) deny: Vec<pb::Rule>,
}

/// Parts of an X.509 subject, each a template; `None`: left out.
#[derive(Debug, Clone, Default)]
pub struct SubjectTemplate {
    /// CN.
    pub common_name: Option<Template>,
    /// O.
    pub organization: Option<Template>,
    /// OU.
    pub organizational_unit: Option<Template>,
}

/// The kinds of SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SvidKind {
    /// X.509 certificate.
    X509,
    /// JSON web token.
    Jwt,
    /// Workload identity token (a JWT bound to a key).
    Wit,
}

impl FromStr for SvidKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        [Self::X509, Self::Jwt, Self::Wit]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| NameError::new("SVID type", text, "it is one of x509, jwt, wit"))
    }
}

impl SvidKind {
    /// As written in YAML and audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
            Self::Wit => "wit",
        }
    }

    /// Longest life, whatever a resource says.
    pub fn ttl_cap(self) -> Duration {
        match self {
            Self::X509 => X509_TTL_CAP,
            Self::Jwt | Self::Wit => JWT_TTL_CAP,
        }
    }

    /// Longest life where the resource says nothing.
    pub fn default_maximum(self) -> Duration {
        Duration::from_secs(24 * 3600)
    }

    /// Life where neither the resource nor the caller says anything.
    pub fn default_ttl(self) -> Duration {
        match self {
            Self::X509 | Self::Wit => Duration::from_secs(3600),
            Self::Jwt => Duration::from_secs(300),
        }
    }
}

impl fmt::Display for SvidKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lives of a kind of SVID, as the resource says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TtlLimits {
    /// When the caller asks for none.
    pub default: Option<Duration>,
    /// At most.
    pub maximum: Option<Duration>,
}

impl TtlLimits {
    /// Resolved, for this kind.
    pub fn bounds(self, kind: SvidKind) -> TtlBounds {
        let maximum = self.maximum.unwrap_or(kind.default_maximum());
        let maximum = maximum.min(kind.ttl_cap());
        let default = self.default.unwrap_or(kind.default_ttl()).min(maximum);
        TtlBounds { default, maximum }
    }
}

/// Lives of a kind of SVID, as granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlBounds {
    /// When the caller asks for none. Not above `maximum`.
    pub default: Duration,
    /// At most.
    pub maximum: Duration,
}

/// How JWT-SVIDs are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum JwtAlgorithm {
    /// ECDSA on P-256.
    #[default]
    Es256,
    /// RSA, PKCS#1 v1.5, for verifiers that know nothing else.
    Rs256,
}

impl JwtAlgorithm {
    /// RFC 7518, 3.1.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// Most bytes of a lock's message.
const MAX_MESSAGE: usize = 1024;

/// Kind `lock`: who is refused until it is removed or expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockSpec {
    /// Who.
    pub target: LockTarget,
    /// Why: told in refusals' audit events. At most 1024 bytes.
    pub message: String,
}

impl LockSpec {
    /// The lock that the issuer itself puts on a joined instance. Its name follows from
    /// the instance, so that there is one at most.
    pub fn automatic(instance_id: &str, reason: &str) -> Result<Resource, NameError> {
        let end = reason.floor_char_boundary(MAX_MESSAGE);
        Ok(Resource {
            metadata: Metadata {
                revision: 1,
                ..Metadata::named(ResourceName::parse(&format!("copied-{instance_id}"))?)
            },
            spec: Spec::Lock(Self {
                target: LockTarget::BotInstance(instance_id.to_owned()),
                message: reason[..end].to_owned(),
            }),
        })
    }
}

/// Who is locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockTarget {
    /// Every instance of this bot.
    Bot(ResourceName),
    /// This joined instance (UUID, lower case).
    BotInstance(String),
    /// This join token, by its public name.
    JoinToken(ResourceName),
    /// Every holder of this role, for what the role lets them have.
    Role(ResourceName),
    /// This workload identity.
    WorkloadIdentity(ResourceName),
    /// This SPIFFE ID, whatever resource it would come from.
    SpiffeId(String),
}

impl LockTarget {
    /// Its key in YAML, as `bot_instance_id`.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Bot(_) => "bot",
            Self::BotInstance(_) => "bot_instance_id",
            Self::JoinToken(_) => "join_token",
            Self::Role(_) => "role",
            Self::WorkloadIdentity(_) => "workload_identity",
            Self::SpiffeId(_) => "spiffe_id",
        }
    }

    /// Its value in YAML.
    pub fn value(&self) -> &str {
        match self {
            Self::Bot(name)
            | Self::JoinToken(name)
            | Self::Role(name)
            | Self::WorkloadIdentity(name) => name.as_str(),
            Self::BotInstance(text) | Self::SpiffeId(text) => text,
        }
    }
}

/// `bot_instance_id 0192…`.
impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key(), self.value())
    }
}

/// Kind `spiffe_federation`: another trust domain, whose name is the resource's.
#[derive(Debug, Clone)]
pub struct SpiffeFederationSpec {
    /// Its bundle, of the trust domain that the resource is named for.
    pub bundle: TrustBundle,
    /// The SPIFFE bundle document that it was read from.
    pub bundle_json: String,
}

/// Kind `sigstore_policy`: what must be signed for a container image, and by whom.
#[derive(Debug, Clone)]
pub struct SigstorePolicySpec {
    /// Who judges by it.
    pub judge: Arc<Judge>,
    /// As it was written.
    pub(super) written: pb::SigstorePolicySpec,
}
