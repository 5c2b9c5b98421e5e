//! What an operator says.

use std::{path::PathBuf, time::Duration};

use super::Prefix;

/// How signatures of images are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SigstoreConfig {
    /// Hosts (`host` or `host:port`) of further registries that may hold signatures, under
    /// the same name of the repository.
    pub registries: Vec<String>,
    /// Hosts of registries that are asked in the clear.
    pub insecure_registries: Vec<String>,
    /// A `config.json` of Docker with names and passwords by registry.
    pub credentials: Option<PathBuf>,
    /// Networks that are not public and that may be asked all the same.
    pub allowed_networks: Vec<Prefix>,
    /// Certificates (PEM) of further authorities that vouch for registries.
    pub ca: Option<PathBuf>,
    /// How long an attestation waits for a registry. Default: 5 s.
    pub time_limit: Duration,
    /// How long an answer is used before the registry is asked again. Default: 10 min.
    pub kept_for: Duration,
    /// Of how many images answers are kept. Default: 64.
    pub kept: usize,
}

impl Default for SigstoreConfig {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            insecure_registries: Vec::new(),
            credentials: None,
            allowed_networks: Vec::new(),
            ca: None,
            time_limit: Duration::from_secs(5),
            kept_for: Duration::from_secs(600),
            kept: 64,
        }
    }
}
