//! SPIFFE IDs and trust domains, parsed strictly.
//!
//! Two texts are the same identity exactly when they are the same bytes: nothing is
//! decoded, folded or normalised, and what another implementation might have to
//! normalise is refused here (percent-encoding, upper-case trust domains, empty or
//! dot segments, trailing slashes). So an id that has passed `parse` may be compared,
//! hashed, logged and used as a key as it stands.
//!
//! Rules: SPIFFE-ID 2.1 to 2.4. Where the text contradicts itself (a trust domain is
//! lower-case, yet "compares case-insensitively"), upper case is refused, as the
//! other libraries do.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Longest SPIFFE ID, in bytes, scheme and separators counted (SPIFFE-ID 2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// A trust domain name, such as `example.org`: 1 to 255 bytes of `a-z 0-9 . - _`.
///
/// Nothing is read into its form: `1.2.3.4` and `a..b` are names like any other
/// (SPIFFE-ID 2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare name (no scheme, no path).
    pub fn parse(name: &str) -> Result<Self, IdError> {
        if let Some(rest) = name.strip_prefix(SCHEME) {
            return Err(IdError::TrustDomainIsId {
                name: excerpt(rest),
            });
        }
        check_trust_domain(name, name, 0)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://<td>`: the id of the trust domain itself, which its authorities carry.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::from_checked(format!("{SCHEME}{}", self.0), self.0.len())
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

// Sound as a map key: the derived `Eq`, `Ord` and `Hash` are those of the text.
impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID: `spiffe://<trust domain>` and a path that is empty or `/` and segments
/// of `a-z A-Z 0-9 . - _`. At most 2048 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpiffeId {
    text: Arc<str>,
    path_at: u16,
}

impl SpiffeId {
    /// Parses `spiffe://td[/path]`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MAX_ID_BYTES {
            return Err(IdError::TooLong { bytes: text.len() });
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(IdError::Scheme {
                text: excerpt(text),
            });
        };
        let trust_domain = rest.split_once('/').map_or(rest, |(name, _)| name);
        check_trust_domain(trust_domain, text, SCHEME.len())?;
        let path_at = SCHEME.len() + trust_domain.len();
        check_path(&text[path_at..], text, path_at)?;
        Ok(Self::from_checked(text.to_owned(), trust_domain.len()))
    }

    /// Puts an id together; `path` is empty or begins with `/`.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        if !path.is_empty() && !path.starts_with('/') {
            return Err(IdError::PathStart {
                path: excerpt(path),
            });
        }
        Self::parse(&format!("{SCHEME}{trust_domain}{path}"))
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
        &self.text[SCHEME.len()..usize::from(self.path_at)]
    }

    /// The path: empty, or `/` and segments.
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path_at)..]
    }

    /// The path's segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path().split('/').skip(1)
    }

    /// Whether it names a trust domain (no path).
    pub fn is_trust_domain(&self) -> bool {
        self.path().is_empty()
    }

    fn from_checked(text: String, trust_domain_bytes: usize) -> Self {
        // A trust domain is at most 255 bytes, so the sum fits with room to spare.
        let path_at = (SCHEME.len() + trust_domain_bytes) as u16;
        Self {
            text: Arc::from(text),
            path_at,
        }
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

/// `offset` is where `name` begins in `text`; positions in errors count from the start of `text`.
fn check_trust_domain(name: &str, text: &str, offset: usize) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::NoTrustDomain {
            text: excerpt(text),
        });
    }
    if let Some((at, byte)) = name.bytes().enumerate().find(|(_, byte)| {
        !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(byte))
    }) {
        let (text, position) = (excerpt(text), offset + at);
        return Err(match byte {
            b'A'..=b'Z' => IdError::UpperCase {
                text,
                byte: Byte(byte),
                position,
            },
            b'%' => IdError::PercentEncoding { text, position },
            b'@' => IdError::UserInfo { text, position },
            b':' => IdError::Port { text, position },
            b'?' => IdError::Query { text, position },
            b'#' => IdError::Fragment { text, position },
            _ => IdError::TrustDomainByte {
                text,
                byte: Byte(byte),
                position,
            },
        });
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(IdError::TrustDomainTooLong { bytes: name.len() });
    }
    Ok(())
}

/// `path` is empty or begins with `/`; `offset` is where it begins in `text`.
fn check_path(path: &str, text: &str, offset: usize) -> Result<(), IdError> {
    let mut position = offset;
    for (number, segment) in path.split('/').enumerate() {
        if number == 0 {
            // What precedes the first slash: empty by construction.
            continue;
        }
        position += 1;
        if let Some((at, byte)) = segment
            .bytes()
            .enumerate()
            .find(|(_, byte)| !(byte.is_ascii_alphanumeric() || b".-_".contains(byte)))
        {
            let (text, position) = (excerpt(text), position + at);
            return Err(match byte {
                b'%' => IdError::PercentEncoding { text, position },
                b'?' => IdError::Query { text, position },
                b'#' => IdError::Fragment { text, position },
                _ => IdError::PathByte {
                    text,
                    byte: Byte(byte),
                    position,
                },
            });
        }
        if segment.is_empty() {
            let text_bytes = text.len();
            let text = excerpt(text);
            return Err(if position == text_bytes {
                IdError::TrailingSlash { text }
            } else {
                IdError::EmptySegment { text, position }
            });
        }
        if segment == "." || segment == ".." {
            return Err(IdError::DotSegment {
                text: excerpt(text),
                segment: segment.to_owned(),
                position,
            });
        }
        position += segment.len();
    }
    Ok(())
}

/// A refused byte; shown as a character if it is printable ASCII, and in hexadecimal always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Byte(pub u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "'{}' (0x{:02x})", char::from(self.0), self.0)
        } else {
            write!(f, "0x{:02x}", self.0)
        }
    }
}

/// The text for an error message: escaped, and cut after 120 characters.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut shown: String = text.escape_debug().take(SHOWN).collect();
    if text.escape_debug().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Why text is not a SPIFFE ID or trust domain. Positions are byte offsets from the
/// start of the text, beginning at 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Nothing was given.
    #[error("the SPIFFE ID is empty: write spiffe://<trust domain>/<path>")]
    Empty,
    /// More than 2048 bytes.
    #[error("the SPIFFE ID has {bytes} bytes, the limit is {MAX_ID_BYTES}: use a shorter path")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The scheme is not `spiffe`.
    #[error(
        "\"{text}\" does not begin with \"spiffe://\" (lower case): write spiffe://<trust domain>/<path>"
    )]
    Scheme {
        /// What was given.
        text: String,
    },
    /// The trust domain is empty.
    #[error("\"{text}\" names no trust domain: write it as in spiffe://example.org/web")]
    NoTrustDomain {
        /// What was given.
        text: String,
    },
    /// The trust domain has more than 255 bytes.
    #[error(
        "the trust domain has {bytes} bytes, the limit is {MAX_TRUST_DOMAIN_BYTES}: use a shorter name"
    )]
    TrustDomainTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A whole id was given where a trust domain's name is wanted.
    #[error("a trust domain is wanted, not an id: leave \"spiffe://\" off \"{name}\"")]
    TrustDomainIsId {
        /// What follows the scheme.
        name: String,
    },
    /// The trust domain is not in lower case.
    #[error(
        "\"{text}\" has the upper-case {byte} in its trust domain at byte {position}: write the trust domain in lower case"
    )]
    UpperCase {
        /// What was given.
        text: String,
        /// The byte.
        byte: Byte,
        /// Where.
        position: usize,
    },
    /// A byte that a trust domain may not have.
    #[error(
        "\"{text}\" has {byte} in its trust domain at byte {position}: use only a-z, 0-9, '.', '-' and '_'"
    )]
    TrustDomainByte {
        /// What was given.
        text: String,
        /// The byte.
        byte: Byte,
        /// Where.
        position: usize,
    },
    /// A byte that a path segment may not have.
    #[error(
        "\"{text}\" has {byte} in its path at byte {position}: use only a-z, A-Z, 0-9, '.', '-' and '_' between slashes"
    )]
    PathByte {
        /// What was given.
        text: String,
        /// The byte.
        byte: Byte,
        /// Where.
        position: usize,
    },
    /// Percent-encoding; it is never decoded.
    #[error(
        "\"{text}\" is percent-encoded at byte {position}: a SPIFFE ID has no escapes, use plain characters"
    )]
    PercentEncoding {
        /// What was given.
        text: String,
        /// Where.
        position: usize,
    },
    /// A user before `@`.
    #[error(
        "\"{text}\" has '@' at byte {position}: a SPIFFE ID has no user, remove what precedes the trust domain"
    )]
    UserInfo {
        /// What was given.
        text: String,
        /// Where.
        position: usize,
    },
    /// A port, or only its colon.
    #[error("\"{text}\" has ':' at byte {position}: a SPIFFE ID has no port, remove it")]
    Port {
        /// What was given.
        text: String,
        /// Where.
        position: usize,
    },
    /// A query, or only its question mark.
    #[error("\"{text}\" has '?' at byte {position}: a SPIFFE ID has no query, remove it")]
    Query {
        /// What was given.
        text: String,
        /// Where.
        position: usize,
    },
    /// A fragment, or only its hash.
    #[error("\"{text}\" has '#' at byte {position}: a SPIFFE ID has no fragment, remove it")]
    Fragment {
        /// What was given.
        text: String,
        /// Where.
        position: usize,
    },
    /// Two slashes in a row.
    #[error(
        "\"{text}\" has an empty path segment at byte {position}: write one slash between segments"
    )]
    EmptySegment {
        /// What was given.
        text: String,
        /// Where.
        position: usize,
    },
    /// `.` or `..` as a segment.
    #[error(
        "\"{text}\" has the path segment \"{segment}\" at byte {position}: paths are not relative, write the path out"
    )]
    DotSegment {
        /// What was given.
        text: String,
        /// The segment.
        segment: String,
        /// Where.
        position: usize,
    },
    /// A slash at the end.
    #[error("\"{text}\" ends with a slash: remove it")]
    TrailingSlash {
        /// What was given.
        text: String,
    },
    /// A path to be joined that does not begin with a slash.
    #[error("the path \"{path}\" does not begin with '/': write \"/{path}\"")]
    PathStart {
        /// What was given.
        path: String,
    },
}

#[cfg(test)]
mod tests;
