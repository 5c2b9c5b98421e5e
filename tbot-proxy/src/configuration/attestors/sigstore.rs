//! `attestors.sigstore`: where signatures of images are looked for.

use std::time::Duration;

use attest::sigstore::{Prefix, SigstoreConfig, is_host};
use config::Fields;

use super::{MAX_LIMIT, MIN_LIMIT, enabled, path};

#[cfg(test)]
mod tests;

/// What is told where no attestor says which image a container has.
pub(super) const OF_WHICH_IMAGE: &str = "of which image? Beside `sigstore` name `docker`, \
     `podman` or `kubernetes`, which say what image a container has";

/// Of the time that an answer of a registry is used.
const MIN_KEPT: Duration = Duration::from_secs(10);
const MAX_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Reads the mapping; none if it is switched off.
pub(super) fn sigstore(fields: &mut Fields<'_>) -> Option<Option<SigstoreConfig>> {
    let enabled = enabled(fields)?;
    let mut config = SigstoreConfig::default();
    config.registries = fields.mappings("additional_registries", |fields| {
        fields.required("host", host)
    });
    config.insecure_registries = fields.scalars("insecure_registries", host);
    config.credentials = fields.optional("credentials_path", path);
    config.ca = fields.optional("ca_path", path);
    config.allowed_networks = fields.scalars("allowed_private_network_prefixes", |text| {
        text.parse::<Prefix>().map_err(|error| error.to_string())
    });
    if let Some(limit) = fields.duration("time_limit", MIN_LIMIT..=MAX_LIMIT) {
        config.time_limit = limit;
    }
    if let Some(kept) = fields.duration("kept_for", MIN_KEPT..=MAX_KEPT) {
        config.kept_for = kept;
    }
    Some(enabled.then_some(config))
}

fn host(text: &str) -> Result<String, String> {
    match is_host(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is no host of a registry: write ghcr.io or registry.example:5000"
        )),
    }
}
