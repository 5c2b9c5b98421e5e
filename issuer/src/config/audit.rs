//! `audit`: where records go beside the store, and whether issuance waits for them.

use std::path::PathBuf;

use ::config::Fields;

use crate::audit::sinks::{FileSettings, OtlpSettings, SinkSettings, check_endpoint, parse_size};

/// What was said of the audit trail, in one place.
#[derive(Debug, Clone, Default)]
pub struct AuditGiven {
    /// `--audit-file`, `audit.file.path`.
    pub file: Option<PathBuf>,
    /// `audit.file.max_size`.
    pub max_size: Option<u64>,
    /// `audit.file.keep`.
    pub keep: Option<u64>,
    /// `--audit-stdout`, `audit.stdout`.
    pub stdout: Option<bool>,
    /// `--audit-otlp`, `audit.otlp.endpoint`.
    pub otlp: Option<String>,
    /// `--audit-otlp-ca`, `audit.otlp.ca_file`.
    pub otlp_ca_file: Option<PathBuf>,
    /// `--audit-best-effort`, the opposite of `audit.required`.
    pub best_effort: Option<bool>,
}

/// What the issuer runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditSettings {
    /// Where records go beside the store.
    pub sinks: SinkSettings,
    /// Whether an SVID is given although the store cannot record it.
    pub best_effort: bool,
}

impl AuditGiven {
    /// What was said here, else there.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            file: self.file.or(other.file),
            max_size: self.max_size.or(other.max_size),
            keep: self.keep.or(other.keep),
            stdout: self.stdout.or(other.stdout),
            otlp: self.otlp.or(other.otlp),
            otlp_ca_file: self.otlp_ca_file.or(other.otlp_ca_file),
            best_effort: self.best_effort.or(other.best_effort),
        }
    }

    /// Resolves to what the issuer runs with, or says what is wrong. `shared`: the store is
    /// one that issuers may share.
    pub(super) fn resolve(self, shared: bool) -> Result<AuditSettings, String> {
        let best_effort = self.best_effort.unwrap_or(false);
        if best_effort && shared {
            return Err(
                "audit.required: false (--audit-best-effort) is not for a database that issuers share: \
                 while it is away, a lock that another issuer has set could be missed"
                    .to_owned(),
            );
        }
        let otlp = match self.otlp {
            Some(_) if !cfg!(feature = "otlp") => {
                return Err(
                    "audit.otlp needs an issuer that was built with the feature `otlp`".to_owned(),
                );
            }
            Some(endpoint) => {
                check_endpoint(&endpoint, self.otlp_ca_file.is_some())?;
                Some(OtlpSettings {
                    endpoint,
                    ca_file: self.otlp_ca_file,
                })
            }
            None => None,
        };
        let file = self.file.map(|path| FileSettings {
            path,
            max_size: self.max_size.unwrap_or(FileSettings::DEFAULT_MAX_SIZE),
            keep: self.keep.unwrap_or(FileSettings::DEFAULT_KEEP),
        });
        Ok(AuditSettings {
            sinks: SinkSettings {
                file,
                stdout: self.stdout.unwrap_or(false),
                otlp,
            },
            best_effort,
        })
    }

    /// Reads the mapping `audit` of the file.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let path = |text: &str| Ok(PathBuf::from(text));
        let mut given = Self {
            stdout: fields.boolean("stdout"),
            best_effort: fields.boolean("required").map(|required| !required),
            ..Self::default()
        };
        fields.mapping("file", |file| {
            given.file = file.required("path", path);
            given.max_size = file.optional("max_size", parse_size);
            given.keep = file.integer("keep", 0..=FileSettings::MOST_KEPT);
            Some(())
        });
        fields.mapping("otlp", |otlp| {
            given.otlp = otlp.required("endpoint", |text| Ok(text.to_owned()));
            given.otlp_ca_file = otlp.optional("ca_file", path);
            Some(())
        });
        Some(given)
    }
}
