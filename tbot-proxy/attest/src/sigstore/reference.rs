//! Which image, in which registry.

use std::fmt;

/// An image: registry, repository and digest. `Display`: `registry/repository@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    host: String,
    repository: String,
    /// 64 hexadecimal digits in lower case.
    digest: String,
}

impl Image {
    /// Reads the name of an image as runtimes have it, `app:1.2` or
    /// `registry.example:5000/team/app@sha256:…`, and its digest.
    ///
    /// # Errors
    ///
    /// If it is no name, or one that no registry knows.
    pub fn parse(name: &str, digest: &str) -> Result<Self, String> {
        let digits = digest.strip_prefix("sha256:").filter(|digits| {
            let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            digits.len() == 64 && digits.bytes().all(is_digit)
        });
        let digits =
            digits.ok_or_else(|| format!("{digest:?} is no SHA-256 digest of an image"))?;
        let unknown = || format!("{name:?} is no name of an image in a registry");
        let path = match name.split_once('@') {
            Some((path, digest)) if digest.starts_with("sha256:") => path,
            Some(_) => return Err(unknown()),
            None => name,
        };
        // A tag comes after the last slash; a port before the first.
        let path = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => path,
        };
        let (host, repository) = match path.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_owned(), rest.to_owned())
            }
            // As Docker completes names (`docker.io` is served elsewhere).
            Some(_) => ("docker.io".to_owned(), path.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{path}")),
        };
        if host == "localhost" {
            return Err(format!("{name:?} was built here: no registry knows it"));
        }
        let repository = match (host.as_str(), repository.contains('/')) {
            ("docker.io", false) => format!("library/{repository}"),
            _ => repository,
        };
        let (fits_host, fits_repository) = (is_host(&host), is_repository(&repository));
        if !fits_host || !fits_repository {
            return Err(unknown());
        }
        Ok(Self {
            host,
            repository,
            digest: digits.to_owned(),
        })
    }

    /// The host of its registry, with the port if it is said.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name of its repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `sha256:…`.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    /// The tag under which cosign keeps what belongs to it: `sha256-….sig`.
    pub(crate) fn tag(&self, suffix: &str) -> String {
        format!("sha256-{}{suffix}", self.digest)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.host, self.repository, self.digest())
    }
}

/// Whether `text` is a name or an address, perhaps with a port: nothing else may stand
/// between `https://` and the path.
pub fn is_host(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    (1..=260).contains(&text.len()) && text.chars().all(is_part)
}

/// The names of repositories (OCI Distribution 1.1, "Pulling manifests").
fn is_repository(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(is_inner)
            && part.bytes().next_back().is_some_and(is_inner)
            && part
                .bytes()
                .all(|byte| is_inner(byte) || b"._-".contains(&byte))
            && !part.contains("..")
    };
    text.len() <= 255 && text.split('/').all(is_part)
}
