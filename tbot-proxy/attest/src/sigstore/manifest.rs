//! What a registry lists: manifests and indexes of OCI (Image Specification 1.1).

use std::collections::BTreeMap;

use serde::Deserialize;

/// A manifest, or an index: as much of either as is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Contents, of a manifest.
    pub layers: Vec<Descriptor>,
    /// Manifests, of an index.
    pub manifests: Vec<Descriptor>,
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// What it is for, of a manifest.
    pub artifact_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// More about it.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest or an index.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest: {error}"))
    }
}

impl Descriptor {
    /// Whether it is a Sigstore bundle, or a manifest of one.
    pub(crate) fn is_bundle(&self) -> bool {
        let is_one = |text: &str| text.starts_with("application/vnd.dev.sigstore.bundle");
        is_one(&self.media_type) || is_one(&self.artifact_type)
    }
}
