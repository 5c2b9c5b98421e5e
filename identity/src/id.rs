//! SPIFFE IDs and trust domains.
use std::{fmt, str::FromStr, sync::Arc};

/// A trust domain name, such as `example.org`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare name (no scheme).
    pub fn parse(name: &str) -> Result<Self, IdError> {
        unimplemented!("{name}")
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// `spiffe://<td>`: the id of the trust domain itself.
    pub fn id(&self) -> SpiffeId {
        unimplemented!()
    }
}
impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for TrustDomain {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::parse(s)
    }
}

/// A SPIFFE ID. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpiffeId {
    text: Arc<str>,
    path_at: u16,
}

impl SpiffeId {
    /// Parses `spiffe://td[/path]`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        unimplemented!("{text}")
    }
    /// Puts an id together; `path` is empty or begins with `/`.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        unimplemented!("{trust_domain}{path}")
    }
    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Its trust domain (allocates once).
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(Arc::from(self.trust_domain_name()))
    }
    /// Its trust domain's name.
    pub fn trust_domain_name(&self) -> &str {
        &self.text["spiffe://".len()..self.path_at as usize]
    }
    /// The path: empty, or `/` and segments.
    pub fn path(&self) -> &str {
        &self.text[self.path_at as usize..]
    }
    /// The path's segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path().split('/').skip(1)
    }
    /// Whether it names a trust domain (no path).
    pub fn is_trust_domain(&self) -> bool {
        self.path().is_empty()
    }
}
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl FromStr for SpiffeId {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::parse(s)
    }
}

/// Why text is not a SPIFFE ID or trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// stub
    #[error("stub")]
    Stub,
}
