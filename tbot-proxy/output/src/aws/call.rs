//! The call itself.

use std::{fs, path::Path, time::SystemTime};

use http_client::Client;
use identity::X509Svid;
use rustls::{RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};

use super::{AwsError, CreateSession, Credentials, signature::PATH};

/// Where `CreateSession` is called.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: Client,
    /// `https://HOST[:PORT]`; of AWS if `None`.
    address: Option<String>,
}

impl Endpoint {
    /// AWS's own, or another address (a VPC endpoint, as `https://HOST[:PORT]`). Its
    /// certificate is of a CA of this machine, or of one in `ca_file` (PEM).
    ///
    /// # Errors
    ///
    /// The address is none, or there are no CA certificates.
    pub fn new(address: Option<&str>, ca_file: Option<&Path>) -> Result<Self, AwsError> {
        if let Some(address) = address {
            check_address(address).map_err(AwsError::Call)?;
        }
        let client = Client::with_roots(roots(ca_file)?, identity::tls::provider())
            .map_err(|error| AwsError::Call(error.to_string()))?;
        Ok(Self {
            client,
            address: address.map(|address| address.trim_end_matches('/').to_owned()),
        })
    }
}

/// Whether this is `https://HOST[:PORT]`.
pub fn check_address(text: &str) -> Result<(), String> {
    let host = text
        .strip_prefix("https://")
        .map(|rest| rest.trim_end_matches('/'));
    let is_good = host.is_some_and(|host| {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte))
    });
    if is_good {
        Ok(())
    } else {
        Err(format!("`{text}` is not https://HOST or https://HOST:PORT"))
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, AwsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let failed = |why: String| AwsError::Call(format!("{}: {why}", path.display()));
            let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(error.to_string()))?;
            }
        }
        None => {
            // One that cannot be read is left out: others may do.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err(AwsError::Call(
            "there are no CA certificates: install the package `ca-certificates`, or name a file of them".to_owned(),
        ));
    }
    Ok(roots)
}

impl CreateSession {
    /// Asks for credentials with the key of an SVID.
    ///
    /// # Errors
    ///
    /// AWS cannot be reached, refuses, or answers with what cannot be used.
    pub async fn call(
        &self,
        svid: &X509Svid,
        endpoint: &Endpoint,
        now: SystemTime,
    ) -> Result<Credentials, AwsError> {
        let address = endpoint
            .address
            .clone()
            .unwrap_or_else(|| format!("https://{}", self.host()));
        let host = address.trim_start_matches("https://");
        let signed = self.signed(svid, host, now)?;
        let mut request = http::Request::post(format!("{address}{PATH}"));
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(signed.body.into())
            .map_err(|error| AwsError::Call(error.to_string()))?;
        let answer = endpoint.client.send(request).await;
        let answer = answer.map_err(|error| AwsError::Call(error.to_string()))?;
        let credentials = Credentials::from_answer(answer.status().as_u16(), answer.body())?;
        if credentials.expires() <= now {
            return Err(AwsError::Answer(
                "the credentials have expired already: look at the clock of this machine"
                    .to_owned(),
            ));
        }
        Ok(credentials)
    }
}
