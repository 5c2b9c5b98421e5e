//! Which keys a Secret has.

use std::collections::BTreeSet;

use crate::artifact::{self, FileNames};

/// Shape of the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `kubernetes.io/tls`: `tls.crt`, `tls.key`, and `ca.crt` beside, for what reads such ones.
    Tls,
    /// `Opaque`: keys are names of files.
    Opaque,
}

impl Shape {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Tls => "kubernetes.io/tls",
            Self::Opaque => "Opaque",
        }
    }

    /// Whether files of these names have keys of a Secret, each its own.
    ///
    /// # Errors
    ///
    /// Which do not, and what to do.
    pub fn check(self, names: &FileNames) -> Result<(), String> {
        let fixed = [artifact::SVID, artifact::SVID_KEY, artifact::BUNDLE];
        let mut keys = BTreeSet::new();
        for (usual, new) in names.others() {
            if self == Self::Tls && fixed.contains(&usual) {
                return Err(format!(
                    "{usual} is {} in a Secret of type kubernetes.io/tls; for other names write `secret_type: Opaque`",
                    self.key(usual)
                ));
            }
            let key = self.key(new);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if key.len() > 253 || !key.bytes().all(is_plain) {
                return Err(format!(
                    "`{new}` cannot be a key of a Secret: letters, digits, `-`, `.` and `_`, 253 at most"
                ));
            }
            let is_taken = key.starts_with("federated.")
                || ["tls.crt", "tls.key", "ca.crt"].contains(&key.as_str())
                || (key != new && artifact::is_usual(&key))
                || !keys.insert(key.clone());
            if is_taken {
                return Err(format!(
                    "`{new}` would be the key {key}, which another file has"
                ));
            }
        }
        Ok(())
    }

    /// The key of a file. No key may hold `/`.
    pub(super) fn key(self, file: &str) -> String {
        match (self, file) {
            (Self::Tls, artifact::SVID) => "tls.crt".to_owned(),
            (Self::Tls, artifact::SVID_KEY) => "tls.key".to_owned(),
            (Self::Tls, artifact::BUNDLE) => "ca.crt".to_owned(),
            (_, file) => file.replace('/', "."),
        }
    }
}
