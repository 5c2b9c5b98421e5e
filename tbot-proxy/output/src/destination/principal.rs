//! Users and groups by name or number.
//!
//! Names are looked up in `/etc/passwd` and `/etc/group`, at the moment of use. Those
//! that only a directory service knows are configured by number.

use std::{fmt, path::Path};

use super::DestinationError;
use crate::file_set::Reader;

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// Who may read beside the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReaderName {
    /// A user.
    User(Principal),
    /// Who is in a group.
    Group(Principal),
}

impl Principal {
    /// Digits are a number, all else is a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return match text.parse() {
                // -1 means "leave it" to the kernel.
                Ok(id) if id != u32::MAX => Ok(Self::Id(id)),
                _ => Err(format!("`{text}` is no number of a user or group")),
            };
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == ':';
        if text.is_empty() || text.contains(bad) {
            return Err(format!("`{text}` is no name of a user or group"));
        }
        Ok(Self::Name(text.to_owned()))
    }

    pub(super) fn user(&self) -> Result<u32, DestinationError> {
        self.look_up(Path::new("/etc/passwd"), "user")
    }

    pub(super) fn group(&self) -> Result<u32, DestinationError> {
        self.look_up(Path::new("/etc/group"), "group")
    }

    fn look_up(&self, file: &Path, kind: &str) -> Result<u32, DestinationError> {
        let name = match self {
            Self::Id(id) => return Ok(*id),
            Self::Name(name) => name,
        };
        let id = sys::accounts::id_of(name, file).map_err(|error| {
            DestinationError::new(format!("cannot read {}: {error}", file.display()))
        })?;
        id.ok_or_else(|| {
            DestinationError::new(format!(
                "there is no {kind} `{name}` in {}: create it, or write its number",
                file.display()
            ))
        })
    }
}

impl ReaderName {
    pub(super) fn resolve(&self) -> Result<Reader, DestinationError> {
        Ok(match self {
            Self::User(user) => Reader::User(user.user()?),
            Self::Group(group) => Reader::Group(group.group()?),
        })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests;
