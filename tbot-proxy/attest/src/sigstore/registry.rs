//! A registry, asked over HTTP (OCI Distribution 1.1; tokens as in Docker's "Token
//! Authentication Specification").

use std::{io::ErrorKind, net::IpAddr, path::PathBuf, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE},
};
use http_client::{Client, Error, bearer};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;

use super::{Image, MAX_BYTES, SigstoreConfig, credentials, private};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a registry may point elsewhere for one content.
const REDIRECTS: usize = 3;
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

pub(super) struct Registry {
    insecure: Vec<String>,
    credentials: Option<PathBuf>,
    plain: Client,
    /// Or why there is none.
    tls: Result<Client, String>,
}

/// A repository of a registry, with the right to read it once that was given.
pub(super) struct Repository<'a> {
    registry: &'a Registry,
    host: String,
    name: &'a str,
    right: Option<HeaderValue>,
}

impl Registry {
    pub(super) fn new(config: &SigstoreConfig) -> Self {
        let allowed = config.allowed_networks.clone();
        let may_ask = move |address: IpAddr| {
            private::is_public(address) || allowed.iter().any(|network| network.contains(address))
        };
        let bounded = |client: Client| {
            client
                .time_limit(ANSWER)
                .max_body(MAX_BYTES)
                .only(may_ask.clone())
        };
        Self {
            insecure: config.insecure_registries.clone(),
            credentials: config.credentials.clone(),
            plain: bounded(Client::plain()),
            tls: tls(config).map(bounded),
        }
    }

    /// A repository, on this host of a registry.
    pub(super) fn repository<'a>(&'a self, host: &str, image: &'a Image) -> Repository<'a> {
        Repository {
            registry: self,
            host: host.to_owned(),
            name: image.repository(),
            right: None,
        }
    }

    /// Where a registry is asked.
    fn base(&self, host: &str) -> String {
        let scheme = match self.insecure.iter().any(|insecure| insecure == host) {
            true => "http",
            false => "https",
        };
        // Docker's own registry is served under another name than its images have.
        let host = match host {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        format!("{scheme}://{host}")
    }

    /// One request, where it may go. In the clear only to whom the operator named.
    async fn get(&self, uri: &str, right: Option<&HeaderValue>) -> Result<Response<Bytes>, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let mut request = Request::get(uri).header(ACCEPT, MANIFESTS);
        if let Some(right) = right {
            request = request.header(AUTHORIZATION, right);
        }
        let request = request.body(Bytes::new()).map_err(|error| told(&error))?;
        let authority = request.uri().authority().map(|it| it.as_str().to_owned());
        let is_insecure = authority.is_some_and(|host| self.insecure.contains(&host));
        let client = match request.uri().scheme_str() {
            Some("http") if is_insecure => &self.plain,
            Some("https") => self.tls.as_ref().map_err(Clone::clone)?,
            _ => {
                return Err(format!(
                    "it is to be asked in the clear, which is not allowed unless \
                     `insecure_registries` names its host: {uri}"
                ));
            }
        };
        match client.send(request).await {
            // What nobody reads is as good as not there.
            Err(Error::TooLarge { .. }) => {
                let mut answer = Response::new(Bytes::new());
                *answer.status_mut() = StatusCode::NOT_FOUND;
                Ok(answer)
            }
            answer => answer.map_err(|error| format!("{error}{}", remedy(&error))),
        }
    }
}

impl Repository<'_> {
    /// The manifest that a tag names; `None`: there is none.
    pub(super) async fn tagged(&mut self, tag: &str) -> Result<Option<Bytes>, String> {
        self.ask(&format!("manifests/{tag}")).await
    }

    /// A manifest; `None`: there is none that has this digest.
    pub(super) async fn manifest(&mut self, digest: &str) -> Result<Option<Bytes>, String> {
        let found = self.ask(&format!("manifests/{digest}")).await?;
        Ok(found.filter(|bytes| has_digest(bytes, digest)))
    }

    /// The index of what refers to a digest; `None`: the registry does not keep one.
    pub(super) async fn referrers(&mut self, digest: &str) -> Result<Option<Bytes>, String> {
        self.ask(&format!("referrers/{digest}")).await
    }

    /// A content; `None`: there is none that has this digest.
    pub(super) async fn blob(&mut self, digest: &str) -> Result<Option<Bytes>, String> {
        let found = self.ask(&format!("blobs/{digest}")).await?;
        Ok(found.filter(|bytes| has_digest(bytes, digest)))
    }

    async fn ask(&mut self, path: &str) -> Result<Option<Bytes>, String> {
        let uri = format!("{}/v2/{}/{path}", self.registry.base(&self.host), self.name);
        let mut answer = self.registry.get(&uri, self.right.as_ref()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.right.is_none() {
            self.right = Some(self.right_to_read(&answer).await?);
            answer = self.registry.get(&uri, self.right.as_ref()).await?;
        }
        let mut at = uri.clone();
        for _ in 0..REDIRECTS {
            if !answer.status().is_redirection() {
                break;
            }
            at = followed(&at, &answer)?;
            // Whoever is pointed to gets no right: it was given by the registry, for itself.
            answer = self.registry.get(&at, None).await?;
        }
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.into_body())),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => Err(format!(
                "{uri} answered with status 401: {} does not take the password of \
                 `credentials_path`",
                self.host
            )),
            status => Err(format!("{uri} answered with status {status}")),
        }
    }

    /// What the registry wants to see, as it says (RFC 9110, 11.6.1).
    async fn right_to_read(&self, answer: &Response<Bytes>) -> Result<HeaderValue, String> {
        let host = &self.host;
        let login = match &self.registry.credentials {
            Some(file) => credentials::basic(file, host)?,
            None => None,
        };
        let asked = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let asked: Vec<_> = asked.filter_map(|value| value.to_str().ok()).collect();
        let with = |scheme: &str| {
            asked.iter().find_map(|text| {
                let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
                name.eq_ignore_ascii_case(scheme).then_some(rest)
            })
        };
        let Some(challenge) = with("bearer") else {
            return match (with("basic"), login) {
                (Some(_), Some(login)) => Ok(login),
                (Some(_), None) => Err(format!(
                    "{host} wants a password, and there is none: `credentials_path` names the \
                     file that has it"
                )),
                (None, _) => Err(format!("{host} wants to see something unknown")),
            };
        };
        let realm = parameter(challenge, "realm")
            .ok_or_else(|| format!("{host} does not say who gives tokens"))?;
        let scope = format!("repository:{}:pull", self.name);
        let mut query = String::new();
        if let Some(service) = parameter(challenge, "service") {
            query = format!("service={}&", escaped(service));
        }
        let mark = if realm.contains('?') { '&' } else { '?' };
        let uri = format!("{realm}{mark}{query}scope={}", escaped(&scope));
        let answer = self.registry.get(&uri, login.as_ref()).await?;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            return Err(format!("{host} gives no token: status {status}"));
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        // What serde says of a mistake may hold the token.
        let token: Token = serde_json::from_slice(answer.body())
            .map_err(|_| format!("{host} gives no token: the answer cannot be read"))?;
        let token = token.token.or(token.access_token);
        let right = token.as_deref().and_then(bearer);
        right.ok_or_else(|| format!("{host} gives no token"))
    }
}

fn tls(config: &SigstoreConfig) -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &config.ca {
        let told = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| told(&error))?;
        let machine = roots.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| told(&error))?;
            roots.add(certificate).map_err(|error| told(&error))?;
        }
        if roots.len() == machine {
            return Err(told(&"it holds no certificate (PEM)"));
        }
    }
    Client::with_roots(roots, identity::tls::provider()).map_err(|error| error.to_string())
}

/// What an operator can do about it.
fn remedy(error: &Error) -> &'static str {
    let Error::Connect { source, .. } = error else {
        return "";
    };
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            ": `ca_path` names further authorities that vouch for registries"
        }
        // Of the client, not of the kernel: see [`Registry::new`].
        None if source.kind() == ErrorKind::PermissionDenied && source.raw_os_error().is_none() => {
            ": `allowed_private_network_prefixes` names the networks that are not public and may \
             be asked"
        }
        _ => "",
    }
}

fn has_digest(bytes: &[u8], wanted: &str) -> bool {
    wanted.strip_prefix("sha256:") == Some(&hex::encode(digest(&SHA256, bytes)))
}

/// Where an answer points.
fn followed(from: &str, answer: &Response<Bytes>) -> Result<String, String> {
    let wrong = || "a registry points to no address".to_owned();
    let location = answer
        .headers()
        .get(LOCATION)
        .and_then(|it| it.to_str().ok());
    let location = location.ok_or_else(wrong)?;
    if location.starts_with('/') && !location.starts_with("//") {
        let from: Uri = from.parse().map_err(|_| wrong())?;
        let scheme = from.scheme_str().ok_or_else(wrong)?;
        let authority = from.authority().ok_or_else(wrong)?;
        return Ok(format!("{scheme}://{authority}{location}"));
    }
    Ok(location.to_owned())
}

/// `key="value"` of a challenge.
fn parameter<'a>(challenge: &'a str, key: &str) -> Option<&'a str> {
    challenge.split(',').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        name.eq_ignore_ascii_case(key)
            .then(|| value.trim_matches('"'))
    })
}

/// For a query: all but what never needs it is escaped.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
