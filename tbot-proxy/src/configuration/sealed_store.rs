//! `sealed_store`: where SVIDs outlive a restart of the agent.

use std::path::PathBuf;

use config::Fields;
use sealed_store::{KeySource, PCR_MAX, TpmAddress};

use super::{Storage, absolute_or_relative_path};

/// A store of sealed SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedStoreConfig {
    /// Its directory.
    pub path: PathBuf,
    /// Where its key is.
    pub key: KeySource,
}

/// The TPM of most machines, shared by the kernel.
const TPM: &str = "/dev/tpmrm0";
/// Name of the store in the directory of the bot identity.
const FOLDER: &str = "sealed";

/// Reads the mapping `sealed_store`.
pub(super) fn sealed_store(
    fields: &mut Fields<'_>,
    storage: Option<&Storage>,
) -> Option<SealedStoreConfig> {
    let own = fields.optional("path", absolute_or_relative_path);
    let path = match storage {
        Some(Storage::Directory(storage)) => Some(own.unwrap_or_else(|| storage.join(FOLDER))),
        Some(Storage::Memory) => {
            let message = "`sealed_store` needs `storage` in a directory: what was granted to another bot does not count, and the bot identity tells which one this is";
            fields.mistake("", message);
            None
        }
        None => None,
    };
    let key = fields.required_mapping("key", key);
    let (path, key) = (path?, key?);
    if let KeySource::File(file) = &key
        && file.starts_with(&path)
    {
        let message =
            "`key`: the key lies beside what it seals: put it on another disk, or in memory (/run)";
        fields.mistake("key", message);
    }
    Some(SealedStoreConfig { path, key })
}

fn key(fields: &mut Fields<'_>) -> Option<KeySource> {
    let kind = fields.required("type", |kind| match kind {
        "file" | "keyring" | "tpm" => Ok(kind.to_owned()),
        other => Err(format!("`{other}` is not known: file, keyring or tpm")),
    });
    match kind.as_deref() {
        Some("file") => {
            let path = fields.required("path", absolute_or_relative_path);
            path.map(KeySource::File)
        }
        Some("keyring") => Some(KeySource::Keyring),
        Some(_) => {
            let address = fields.optional("address", str::parse::<TpmAddress>);
            let mut pcrs = fields.scalars("pcrs", |text| match text.parse() {
                Ok(pcr) if pcr <= PCR_MAX => Ok(pcr),
                _ => Err(format!("`{text}` is no PCR: 0 to {PCR_MAX}")),
            });
            pcrs.sort_unstable();
            pcrs.dedup();
            let address = address.unwrap_or_else(|| TpmAddress::Device(TPM.into()));
            Some(KeySource::Tpm { address, pcrs })
        }
        None => {
            fields.ignore_rest();
            None
        }
    }
}
