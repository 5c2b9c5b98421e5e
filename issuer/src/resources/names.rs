//! Names in resources, each parsed once.

use std::fmt;

use aws_lc_rs::digest;
use identity::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

/// Workload paths under these are refused: they are the issuer's own (DESIGN
/// section 5).
const RESERVED: [&str; 2] = ["/bot", "/issuer"];

/// The reserved prefix that a path is, or is under.
pub(super) fn reserved_prefix(path: &str) -> Option<&'static str> {
    RESERVED.into_iter().find(|reserved| {
        let under = path.strip_prefix(reserved);
        under.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Why text is not what it should be: what it is meant to be, its value, and
/// what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not accepted: {why}")]
pub struct NameError {
    what: &'static str,
    value: String,
    why: String,
}

impl NameError {
    pub(crate) fn new(what: &'static str, value: &str, why: impl Into<String>) -> Self {
        // A message repeats no more of a foreign text than helps.
        let mut value: String = value.chars().take(80).collect();
        value.retain(|character| !character.is_control());
        Self {
            what,
            value,
            why: why.into(),
        }
    }
}

/// 1 to 64 of `a–z 0–9 . - _`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName(String);

impl ResourceName {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte)
            })
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits {
            return Ok(Self(text.to_owned()));
        }
        let why = "1 to 64 of a-z 0-9 . - _, a letter or digit first";
        Err(NameError::new("name", text, why))
    }

    /// Of a `spiffe_federation`: the other trust domain, up to 255 characters.
    pub fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        Self(trust_domain.as_str().to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The path of a workload's SPIFFE ID: legal in an id, not empty, not reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffePath(String);

impl SpiffePath {
    /// Parses a path. Its length together with a trust domain is checked by
    /// [`SpiffePath::id`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |why: String| Err(NameError::new("SPIFFE ID path", text, why));
        if !text.starts_with('/') {
            return refuse("it begins with `/`".to_owned());
        }
        // The shortest trust domain: what is too long for it is too long for all.
        if let Err(error) = SpiffeId::parse(&format!("spiffe://x{text}")) {
            return refuse(error.to_string());
        }
        if let Some(reserved) = reserved_prefix(text) {
            return refuse(format!("paths under {reserved} belong to the issuer"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole id, at most 2048 bytes (ID-16).
    pub fn id(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, NameError> {
        SpiffeId::new(trust_domain, &self.0)
            .map_err(|error| NameError::new("SPIFFE ID path", &self.0, error.to_string()))
    }
}

/// A DNS name as a subject alternative name: lower-case LDH labels, at most 253
/// bytes; the leftmost label may be `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let labels = text.strip_prefix("*.").unwrap_or(text);
        let fits = text.len() <= 253
            && labels.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|byte| {
                        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
                    })
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            });
        let numeric = labels
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        if fits && !numeric {
            return Ok(Self(text.to_owned()));
        }
        let why = "a DNS name in lower case, such as db.example.org or *.example.org (no address)";
        Err(NameError::new("DNS name", text, why))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The secret of a join token. Shown once, kept as a SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(Zeroizing<String>);

impl TokenSecret {
    const SHORTEST: usize = 32;
    const SHOWN: &str = "sha256-";

    /// A new one: 256 random bits, 64 hex digits.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice())?;
        Ok(Self(Zeroizing::new(hex::encode(bytes.as_slice()))))
    }

    /// One that an operator chose. The message never repeats it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let why = if text.starts_with(Self::SHOWN) {
            "this is how a stored token is shown, not its secret"
        } else if text.len() < Self::SHORTEST {
            "a token's name is its secret: 32 to 64 characters, best from `issuer bot add`"
        } else if ResourceName::parse(text).is_err() {
            "a token's name has 32 to 64 of a-z 0-9 . - _, a letter or digit first"
        } else {
            return Ok(Self(Zeroizing::new(text.to_owned())));
        };
        Err(NameError::new("token name", "[redacted]", why))
    }

    /// The name that a token is shown by. The message never repeats what is none: it may
    /// be the secret.
    pub fn parse_public_name(text: &str) -> Result<ResourceName, NameError> {
        let digits = text.strip_prefix(Self::SHOWN).unwrap_or_default();
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() == 16 && digits.bytes().all(is_hex) {
            return Ok(ResourceName(text.to_owned()));
        }
        let why = "a token is named as `issuer get token` shows it: sha256- and 16 hex digits";
        Err(NameError::new("join token", "[redacted]", why))
    }

    /// Takes what a caller presents, whatever it is: it is only hashed.
    pub fn presented(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// How it is stored and looked up.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        hash
    }

    /// How it is shown: `sha256-` and the first 16 digits of its hash.
    pub fn public_name(&self) -> ResourceName {
        ResourceName(format!(
            "{}{}",
            Self::SHOWN,
            hex::encode(&self.sha256()[..8])
        ))
    }

    /// The secret itself, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
