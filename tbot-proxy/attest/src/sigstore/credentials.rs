//! Names and passwords by registry, as `docker login` writes them.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde::Deserialize;

/// Largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    auth: String,
}

/// The `authorization` for a registry, if the file has one. The file is read each time:
/// whoever renews passwords replaces it.
pub(super) fn basic(file: &Path, host: &str) -> Result<Option<HeaderValue>, String> {
    let told = |why: &dyn std::fmt::Display| format!("credentials {}: {why}", file.display());
    let size = std::fs::metadata(file).map_err(|error| told(&error))?.len();
    if size > MAX_FILE {
        return Err(told(&format_args!(
            "the file has more than {MAX_FILE} bytes"
        )));
    }
    let bytes = std::fs::read(file).map_err(|error| told(&error))?;
    // What serde says of a mistake may hold a password.
    let logins: File =
        serde_json::from_slice(&bytes).map_err(|_| told(&"it is no config.json of Docker"))?;
    let wanted = |key: &str| {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest);
        let name = key.split('/').next().unwrap_or(key);
        name == host || (host == "docker.io" && name == "index.docker.io")
    };
    let found = (logins.auths.iter()).find(|(key, login)| wanted(key) && !login.auth.is_empty());
    let Some((_, login)) = found else {
        return Ok(None);
    };
    let is_pair = STANDARD
        .decode(&login.auth)
        .is_ok_and(|pair| pair.contains(&b':'));
    let value = HeaderValue::try_from(format!("Basic {}", login.auth)).ok();
    let mut value = value.filter(|_| is_pair).ok_or_else(|| {
        told(&format_args!(
            "`auth` of {host} is no Base64 of NAME:PASSWORD"
        ))
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}
