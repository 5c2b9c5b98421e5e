//! What the issuer is told to hold: bots, roles, tokens, workload identities.
//!
//! One typed form, with the only validation there is; the command line reads it
//! from YAML ([`yaml`]) and the server from the wire ([`wire`]), and both refuse
//! the same things with the same words. Shapes follow Teleport's (DESIGN D9).

mod names;
pub mod wire;
pub mod yaml;

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

pub use self::names::{DnsName, NameError, ResourceName, SpiffePath, TokenSecret};

/// Longest life that an X509-SVID may have.
pub const X509_TTL_CAP: Duration = Duration::from_secs(14 * 24 * 3600);
/// Longest life of an X509-SVID whose resource says nothing.
pub const X509_TTL_DEFAULT_CAP: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a join token.
pub const TOKEN_TTL_CAP: Duration = Duration::from_secs(24 * 3600);

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
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Bot, Self::Role, Self::Token, Self::WorkloadIdentity];

    /// As written in YAML and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Role => "role",
            Self::Token => "token",
            Self::WorkloadIdentity => "workload_identity",
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
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                NameError::new(
                    "kind",
                    text,
                    "it is one of bot, role, token, workload_identity",
                )
            })
    }
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        }
    }

    /// Whether it says the same as `other`, whatever the revision.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let revision = self.metadata.revision;
        let metadata = Metadata {
            revision,
            ..other.metadata.clone()
        };
        self.metadata == metadata && self.spec == other.spec
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
    /// End of life (tokens only).
    pub expires: Option<SystemTime>,
}

/// What a kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// Kind `bot`.
    Bot(BotSpec),
    /// Kind `role`.
    Role(RoleSpec),
    /// Kind `token`.
    Token(TokenSpec),
    /// Kind `workload_identity`.
    WorkloadIdentity(WorkloadIdentitySpec),
}

/// Kind `bot`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BotSpec {
    /// Names of the roles that it holds, in order, each once.
    pub roles: Vec<ResourceName>,
}

/// Kind `role`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoleSpec {
    /// Which workload identities its holders may have.
    pub workload_identity_labels: LabelSelector,
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

/// Kind `workload_identity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadIdentitySpec {
    /// Path of the SPIFFE ID.
    pub path: SpiffePath,
    /// Told to the workload with the SVID; at most 1024 bytes (WA-17).
    pub hint: String,
    /// DNS subject alternative names.
    pub dns_sans: Vec<DnsName>,
    /// Longest life; `None`: [`X509_TTL_DEFAULT_CAP`].
    pub x509_maximum_ttl: Option<Duration>,
}

impl WorkloadIdentitySpec {
    /// The longest life that is granted.
    pub fn x509_ttl_bound(&self) -> Duration {
        self.x509_maximum_ttl
            .unwrap_or(X509_TTL_DEFAULT_CAP)
            .min(X509_TTL_CAP)
    }
}

/// Which labels a resource must carry: every key must match, the values of a key
/// are alternatives, `*` as a value matches any value, and `*: *` matches every
/// resource. An empty selector matches none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(BTreeMap<String, Vec<String>>);

impl LabelSelector {
    /// Checks the keys and values.
    pub fn new(keys: impl IntoIterator<Item = (String, Vec<String>)>) -> Result<Self, NameError> {
        let mut selector = BTreeMap::new();
        for (key, values) in keys {
            if values.is_empty() {
                let why = "a key without values matches nothing: name values, or `*`";
                return Err(NameError::new("label selector key", &key, why));
            }
            if key == "*" && values != ["*"] {
                let why = "the key `*` goes with the value `*` only";
                return Err(NameError::new("label selector key", &key, why));
            }
            if key != "*" {
                check_label(&key, "")?;
            }
            for value in &values {
                check_label("*", value)?;
            }
            if selector.insert(key.clone(), values).is_some() {
                let why = "it is given twice";
                return Err(NameError::new("label selector key", &key, why));
            }
        }
        Ok(Self(selector))
    }

    /// Whether a resource with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|(key, values)| {
                key == "*"
                    || labels.get(key).is_some_and(|label| {
                        values.iter().any(|value| value == "*" || value == label)
                    })
            })
    }

    /// Its keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.0.iter()
    }
}

/// Checks one label: key 1 to 128 printable ASCII characters, value up to 256
/// bytes without control characters.
pub(crate) fn check_label(key: &str, value: &str) -> Result<(), NameError> {
    let key_ok = (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !key_ok {
        let why = "a label's key has 1 to 128 printable ASCII characters";
        return Err(NameError::new("label", key, why));
    }
    if value.len() > 256 || value.chars().any(char::is_control) {
        let why = "a label's value has at most 256 bytes and no control characters";
        return Err(NameError::new("label value", value, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
