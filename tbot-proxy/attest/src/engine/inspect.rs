//! What container engines answer: bytes in, facts out.
//!
//! Docker Engine API (1.24 on) and Podman's own (libpod 3 on). Only what is asked
//! for is looked at, and a shape that is not theirs is an error.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A container, as its engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its whole id.
    pub id: String,
    /// Its name, without Docker's leading slash.
    pub name: String,
    /// The image as whoever started it named it.
    pub image: String,
    /// The id of the image, which the engine can be asked for.
    pub image_id: String,
    /// The digest of the image's manifest, if the engine says it here (Podman).
    pub image_digest: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its first process, in the engine's PID namespace; 0 if it does not run.
    pub pid: u32,
    /// The id of the pod that holds it (Podman).
    pub pod: Option<String>,
}

/// A pod of Podman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An answer that is not as the API has it.
#[derive(Debug, thiserror::Error)]
#[error("the engine's answer about {what} is not as expected: {source}")]
pub struct InspectError {
    what: &'static str,
    source: serde_json::Error,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    id: String,
    name: String,
    image: String,
    #[serde(default)]
    image_name: Option<String>,
    #[serde(default)]
    image_digest: Option<String>,
    #[serde(default)]
    pod: Option<String>,
    state: State,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads `GET /containers/ID/json` of Docker, or of Podman below `/libpod`.
pub fn container(bytes: &[u8]) -> Result<Inspected, InspectError> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|source| InspectError {
        what: "a container",
        source,
    })?;
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Inspected {
        id: answer.id,
        name: answer.name.trim_start_matches('/').to_owned(),
        image: some(answer.image_name).unwrap_or(answer.config.image),
        image_id: answer.image,
        image_digest: some(answer.image_digest),
        labels: answer.config.labels.unwrap_or_default(),
        pid: answer.state.pid,
        pod: some(answer.pod),
    })
}

/// Reads `GET /libpod/pods/ID/json` of Podman.
pub fn pod(bytes: &[u8]) -> Result<Pod, InspectError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        name: String,
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
    }
    let answer: Answer = serde_json::from_slice(bytes).map_err(|source| InspectError {
        what: "a pod",
        source,
    })?;
    Ok(Pod {
        name: answer.name,
        labels: answer.labels.unwrap_or_default(),
    })
}

/// Reads `GET /images/ID/json` of Docker: the digest of the manifest by which a
/// registry knows the image that a container names so.
///
/// One image can come from several repositories. Is it known by one digest, that is
/// it; else the one of the repository that the container names; else none.
pub fn image_digest(bytes: &[u8], named: &str) -> Result<Option<String>, InspectError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        repo_digests: Option<Vec<String>>,
    }
    let answer: Answer = serde_json::from_slice(bytes).map_err(|source| InspectError {
        what: "an image",
        source,
    })?;
    let digests = answer.repo_digests.unwrap_or_default();
    let known: Vec<(&str, &str)> = digests
        .iter()
        .filter_map(|digest| digest.rsplit_once('@'))
        .collect();
    let one = |mut digests: Vec<&str>| {
        digests.sort_unstable();
        digests.dedup();
        match digests[..] {
            [digest] => Some(digest.to_owned()),
            _ => None,
        }
    };
    let all = one(known.iter().map(|(_, digest)| *digest).collect());
    Ok(all.or_else(|| {
        let (name, pinned) = match named.rsplit_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (named, None),
        };
        let repository = repository(name);
        one(known
            .iter()
            .filter(|(name, digest)| {
                *name == repository && pinned.is_none_or(|pinned| pinned == *digest)
            })
            .map(|(_, digest)| *digest)
            .collect())
    }))
}

/// The name without its tag. A colon before a slash is that of a port.
fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}
