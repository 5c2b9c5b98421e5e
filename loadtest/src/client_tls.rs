//! The generator's TLS 1.3 client.
//!
//! It must be cheap, for it shares the machine with what it measures: a server chain is verified
//! once by path building and from then on recognised by its bytes. The proof of possession (the
//! signature over the handshake) is checked every time.
//!
//! SPIFFE servers carry no host name, so the server is judged by its chain to `--ca`, by its URI
//! SAN if an id is expected, and by a DNS SAN only if a server name was given.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::Context;
use clap::ValueEnum;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime, pem::PemObject},
};

/// Key exchange group to offer. Only this one is offered, so that all targets do the same work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// X25519, which all servers have.
    X25519,
    /// X25519 with ML-KEM-768 (post-quantum hybrid).
    X25519mlkem768,
    /// NIST P-256.
    Secp256r1,
}

/// Cipher suite to offer (only this one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128gcm,
    /// `TLS_AES_256_GCM_SHA384`.
    Aes256gcm,
    /// `TLS_CHACHA20_POLY1305_SHA256`.
    Chacha20,
}

/// Whether connections resume the session of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Resume {
    /// Full handshakes only.
    #[default]
    Never,
    /// Every connection of a worker but its first; a full handshake instead is an error.
    Always,
}

/// What the TLS client is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// PEM file: our chain, leaf first. Without: no client certificate is sent.
    pub cert: Option<PathBuf>,
    /// PEM file: our key.
    pub key: Option<PathBuf>,
    /// PEM file: whom to trust.
    pub ca: PathBuf,
    /// DNS name to send (SNI) and to find in the certificate.
    pub server_name: Option<ServerName<'static>>,
    /// URI SAN that the server must have.
    pub expect_id: Option<String>,
    /// Session resumption.
    pub resume: Resume,
    /// Key exchange.
    pub group: Group,
    /// Cipher suite.
    pub cipher: Cipher,
}

/// A client configuration from which each worker takes its own (with its own tickets).
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    resume: Resume,
}

/// What the TLS client is made of, in memory.
#[derive(Debug)]
pub struct Material {
    /// Whom to trust.
    pub anchors: Vec<TrustAnchor<'static>>,
    /// Our chain, leaf first, and its key. Without: no client certificate is sent.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// See [`Options`].
    pub server_name: Option<ServerName<'static>>,
    /// See [`Options`].
    pub expect_id: Option<String>,
    /// See [`Options`].
    pub resume: Resume,
    /// See [`Options`].
    pub group: Group,
    /// See [`Options`].
    pub cipher: Cipher,
    /// Application protocols to offer, such as `h2`; empty: none.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientTls {
    /// Reads the PEM files and builds the configuration.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let identity = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => Some((read_chain(cert)?, read_key(key)?)),
            _ => None,
        };
        Self::new(Material {
            anchors: read_anchors(&options.ca)?,
            identity,
            server_name: options.server_name.clone(),
            expect_id: options.expect_id.clone(),
            resume: options.resume,
            group: options.group,
            cipher: options.cipher,
            alpn: Vec::new(),
        })
    }

    /// Builds the configuration.
    pub fn new(material: Material) -> anyhow::Result<Self> {
        let provider = Arc::new(provider(material.group, material.cipher));
        let verifier = SpiffeServerVerifier {
            anchors: material.anchors,
            provider: provider.clone(),
            server_name: material.server_name.clone(),
            expect_id: material.expect_id,
            verified: Mutex::new(None),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 client")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match material.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .context("the client's key does not fit its certificate")?,
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = material.alpn;
        // rustls wants a name; an IP address is never sent.
        let loopback = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        Ok(Self {
            config: Arc::new(config),
            name: material.server_name.unwrap_or(loopback),
            resume: material.resume,
        })
    }

    /// Configuration and name for one worker. Tickets are used once, so workers do not share them.
    pub fn for_worker(&self) -> (Arc<ClientConfig>, ServerName<'static>) {
        let config = match self.resume {
            Resume::Never => self.config.clone(),
            Resume::Always => {
                let mut own = ClientConfig::clone(&self.config);
                own.resumption = Resumption::in_memory_sessions(8);
                Arc::new(own)
            }
        };
        (config, self.name.clone())
    }

    /// Whether sessions are to be resumed.
    pub fn resume(&self) -> Resume {
        self.resume
    }
}

/// What a handshake settled on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Such as `TLSv1_3`.
    pub version: String,
    /// Such as `X25519`.
    pub group: String,
    /// Such as `TLS13_AES_128_GCM_SHA256`.
    pub cipher: String,
}

impl Negotiated {
    /// Reads it from a connection after its handshake.
    pub fn of(connection: &rustls::ClientConnection) -> Self {
        let version = connection.protocol_version();
        let group = connection.negotiated_key_exchange_group();
        let cipher = connection.negotiated_cipher_suite();
        Self {
            version: version.map_or_else(String::new, |v| format!("{v:?}")),
            group: group.map_or_else(String::new, |g| format!("{:?}", g.name())),
            cipher: cipher.map_or_else(String::new, |c| format!("{:?}", c.suite())),
        }
    }
}

/// Whether the handshake of this connection resumed a session.
pub fn is_resumed(connection: &rustls::ClientConnection) -> bool {
    connection.handshake_kind() == Some(HandshakeKind::Resumed)
}

fn provider(group: Group, cipher: Cipher) -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![match group {
            Group::X25519 => aws_lc_rs::kx_group::X25519,
            Group::X25519mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            Group::Secp256r1 => aws_lc_rs::kx_group::SECP256R1,
        }],
        cipher_suites: vec![match cipher {
            Cipher::Aes128gcm => aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            Cipher::Aes256gcm => aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            Cipher::Chacha20 => aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        }],
        ..aws_lc_rs::default_provider()
    }
}

/// The private key of a PEM file.
pub fn read_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path)
        .with_context(|| format!("{}: no private key in PEM", path.display()))
}

/// The certificates of a PEM file; at least one.
pub fn read_chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{}: cannot read PEM certificates", path.display()))?;
    anyhow::ensure!(
        !chain.is_empty(),
        "{}: holds no PEM certificate",
        path.display()
    );
    Ok(chain)
}

/// The CA certificates of a PEM file.
pub fn read_anchors(path: &Path) -> anyhow::Result<Vec<TrustAnchor<'static>>> {
    let anchor =
        |der: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(der).map(|a| a.to_owned());
    read_chain(path)?
        .iter()
        .map(anchor)
        .collect::<Result<_, _>>()
        .with_context(|| format!("--ca {}: not a usable CA certificate", path.display()))
}

/// Verifies a chain once, remembers its leaf, and the signature of every handshake.
#[derive(Debug)]
struct SpiffeServerVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    provider: Arc<CryptoProvider>,
    server_name: Option<ServerName<'static>>,
    expect_id: Option<String>,
    /// Leaf of the chain verified last.
    verified: Mutex<Option<Vec<u8>>>,
}

impl SpiffeServerVerifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let refused = |e: webpki::Error| {
            rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(
                Arc::new(e),
            )))
        };
        let entity = webpki::EndEntityCert::try_from(leaf).map_err(refused)?;
        entity
            .verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &self.anchors,
                intermediates,
                now,
                webpki::KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(refused)?;
        if let Some(name) = &self.server_name {
            entity
                .verify_is_valid_for_subject_name(name)
                .map_err(refused)?;
        }
        if let Some(expected) = &self.expect_id {
            let ids: Vec<&str> = entity.valid_uri_names().collect();
            if ids != [expected.as_str()] {
                return Err(rustls::Error::General(format!(
                    "the server is {ids:?}, expected {expected}"
                )));
            }
        }
        Ok(())
    }
}

impl ServerCertVerifier for SpiffeServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // A poisoned lock only means that another worker panicked; the value is whole.
        let mut verified = self.verified.lock().unwrap_or_else(|e| e.into_inner());
        if verified.as_deref() != Some(leaf.as_ref()) {
            self.verify_chain(leaf, intermediates, now)?;
            *verified = Some(leaf.to_vec());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
