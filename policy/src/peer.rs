//! Authorization of a peer by its SPIFFE ID.
//!
//! Deny comes before allow, and what no rule allows is denied (DESIGN D5). Rules
//! match *parsed* ids, trust domain and segments, never text: the prefix
//! `spiffe://td/a` covers `spiffe://td/a` and `spiffe://td/a/b`, never
//! `spiffe://td/ab`.

use std::fmt;

use identity::{IdError, SpiffeId, TrustDomain};

/// Which peers may. The default allows nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    deny: Vec<PeerRule>,
    allow: Vec<PeerRule>,
}

impl PeerPolicy {
    /// Peers that `allow` names and `deny` does not.
    pub fn new(deny: Vec<PeerRule>, allow: Vec<PeerRule>) -> Self {
        Self { deny, allow }
    }

    /// Whether no peer can ever be allowed.
    pub fn allows_nobody(&self) -> bool {
        self.allow.is_empty()
    }

    /// The rules that allow.
    pub fn allow(&self) -> &[PeerRule] {
        &self.allow
    }

    /// The rules that deny; each is stronger than any that allows.
    pub fn deny(&self) -> &[PeerRule] {
        &self.deny
    }

    /// Decides on a peer and names the rule that decided.
    pub fn decide(&self, peer: &SpiffeId) -> Decision<'_> {
        if let Some(rule) = self.deny.iter().find(|rule| rule.matches(peer)) {
            return Decision::Denied(rule);
        }
        match self.allow.iter().find(|rule| rule.matches(peer)) {
            Some(rule) => Decision::Allowed(rule),
            None => Decision::NotAllowed,
        }
    }
}

/// What a policy says of a peer, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// An allow rule matched and no deny rule did.
    Allowed(&'a PeerRule),
    /// A deny rule matched.
    Denied(&'a PeerRule),
    /// No rule matched.
    NotAllowed,
}

impl Decision<'_> {
    /// Whether the peer may.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(rule) => write!(f, "allowed by {rule}"),
            Self::Denied(rule) => write!(f, "denied by {rule}"),
            Self::NotAllowed => f.write_str("no allow rule matches"),
        }
    }
}

/// One set of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerRule {
    /// Exactly this id.
    Id(SpiffeId),
    /// Every id of the trust domain.
    TrustDomain(TrustDomain),
    /// Every id at or under a path.
    PathPrefix(PathPrefix),
}

impl PeerRule {
    /// Whether the peer is in the set.
    pub fn matches(&self, peer: &SpiffeId) -> bool {
        match self {
            Self::Id(id) => id == peer,
            Self::TrustDomain(trust_domain) => trust_domain.as_str() == peer.trust_domain_name(),
            Self::PathPrefix(prefix) => prefix.covers(peer),
        }
    }
}

/// `id=…`, `trust_domain=…` or `path_prefix=…`, as in the configuration.
impl fmt::Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "id={id}"),
            Self::TrustDomain(trust_domain) => write!(f, "trust_domain={trust_domain}"),
            Self::PathPrefix(prefix) => write!(f, "path_prefix={}", prefix.0),
        }
    }
}

/// A path of a trust domain and everything below it, by whole segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPrefix(SpiffeId);

impl PathPrefix {
    /// Parses the id of the top of the tree: `spiffe://td/a/b`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        SpiffeId::parse(text).map(Self)
    }

    /// Whether `id` is the top of the tree or below it.
    pub fn covers(&self, id: &SpiffeId) -> bool {
        id.as_str()
            .strip_prefix(self.0.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests;
