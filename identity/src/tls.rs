//! rustls configurations that follow an [`IdentitySource`].
//!
//! * One `Arc<ServerConfig>` or `Arc<ClientConfig>` per identity generation: while nothing
//!   changes, every call of `config()` answers with the same one, for a load and two
//!   compares, and a look at the clock: an expired SVID is never presented, however late its
//!   keeper is to take it away. A change makes a new, independent config; connections that began with the
//!   old one keep it and never notice.
//! * The verifiers inside ask the source, not the config: a handshake that began before a
//!   bundle changed is judged by the bundles that hold when the certificate arrives.
//! * rustls does not call a verifier on a *resumed* handshake. So whoever completes a
//!   handshake, resumed or not, asks `identify`, which verifies the peer's chain against
//!   the current bundles and `now` (DESIGN D3). And tickets live no longer than the
//!   generation that sealed them: their keys belong to one config, and
//!   `forget_sessions` (a policy change) replaces it.
//! * Names play no part: no SNI is sent, host names are not checked, the peer's SPIFFE ID
//!   is who it is. Whether that id may connect is the caller's decision.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use rustls::{
    CipherSuite, ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms,
        aws_lc_rs::{Ticketer, default_provider},
    },
    pki_types::{CertificateDer, ServerName},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::{Identity, IdentitySource, PeerIdentity, VerifyError, X509Svid};

mod any_server;
mod error;
mod generation;
mod pin;
mod pinned;
mod verifier;

pub use any_server::AnyServer;
pub use error::TlsError;
use generation::PerGeneration;
pub use pin::{CaPin, PinError};
pub use pinned::{PinnedServer, PinnedServerVerifier, pinned_client_config, verify_pinned};
pub(crate) use verifier::Refusal;
use verifier::{OwnKey, PeerVerifier};

/// Sessions a client keeps; one for each server it talks to is what resumption needs.
const CLIENT_SESSIONS: usize = 256;

/// How a server accepts.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// ALPN protocols offered, most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether a client without a certificate is let through the handshake (to be handled by the caller).
    pub client_auth_optional: bool,
    /// Whether TLS 1.2 is spoken too.
    pub tls12: bool,
    /// Whether tickets are sent, so that clients can resume.
    pub resumption: bool,
    /// Whether the trust domain's CA certificate is sent behind the chain, so that a client that has only a pin can check it.
    pub send_authority: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            alpn: vec![],
            client_auth_optional: false,
            tls12: false,
            resumption: true,
            send_authority: false,
        }
    }
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// ALPN protocols offered, most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether TLS 1.2 is spoken too.
    pub tls12: bool,
    /// Whether sessions are resumed.
    pub resumption: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            alpn: vec![],
            tls12: false,
            resumption: true,
        }
    }
}

/// Server side: one `ServerConfig` per identity generation.
pub struct ServerTls {
    source: Arc<IdentitySource>,
    options: ServerOptions,
    configs: PerGeneration<ServerConfig>,
}

impl ServerTls {
    /// Follows `source`.
    pub fn new(source: Arc<IdentitySource>, options: ServerOptions) -> Arc<Self> {
        Arc::new(Self {
            source,
            options,
            configs: PerGeneration::new(),
        })
    }

    /// The config of the current generation.
    ///
    /// Errors: there is no SVID yet, or it has expired; `send_authority` is set and no authority in the bundle
    /// of our own trust domain issued our SVID; rustls refuses to build (no randomness).
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.configs
            .get(&self.source, |identity| self.build(identity))
    }

    /// Who the peer is *now*; to be called after every handshake, resumed ones too.
    ///
    /// `peer_chain` is `peer_certificates()` of the connection. `None` or an empty chain is an
    /// error; with `client_auth_optional` the caller looks for that first.
    pub fn identify(
        &self,
        peer_chain: Option<&[CertificateDer<'_>]>,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        identify(&self.source, peer_chain, now)
    }

    /// Makes every ticket handed out so far worthless (a policy change).
    pub fn forget_sessions(&self) {
        self.configs.expire();
    }

    fn build(&self, identity: &Identity) -> Result<ServerConfig, TlsError> {
        let svid = identity.presentable()?;
        let key = if self.options.send_authority {
            with_authority(svid, identity)?
        } else {
            svid.certified_key().clone()
        };
        let verifier = PeerVerifier::new(self.source.clone(), !self.options.client_auth_optional);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(self.options.tls12))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(OwnKey(key)));
        config.ignore_client_order = true;
        config.alpn_protocols.clone_from(&self.options.alpn);
        // Within the process only: `relay` seals its access_denied alert with the write key.
        config.enable_secret_extraction = true;
        // Sessions are kept by clients, sealed, or not at all: nothing grows here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if self.options.resumption {
            config.ticketer = Ticketer::new()?;
            config.send_tls13_tickets = 1;
        }
        Ok(config)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Client side: one `ClientConfig` per identity generation.
pub struct ClientTls {
    source: Arc<IdentitySource>,
    options: ClientOptions,
    configs: PerGeneration<ClientConfig>,
}

impl ClientTls {
    /// Follows `source`.
    pub fn new(source: Arc<IdentitySource>, options: ClientOptions) -> Arc<Self> {
        Arc::new(Self {
            source,
            options,
            configs: PerGeneration::new(),
        })
    }

    /// The config of the current generation.
    ///
    /// Errors: there is no SVID yet, or it has expired; rustls refuses to build.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.configs
            .get(&self.source, |identity| self.build(identity))
    }

    /// Who the peer is *now*; to be called after every handshake, resumed ones too.
    ///
    /// `peer_chain` is `peer_certificates()` of the connection; `None` or an empty chain is an
    /// error.
    pub fn identify(
        &self,
        peer_chain: Option<&[CertificateDer<'_>]>,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        identify(&self.source, peer_chain, now)
    }

    /// Drops every stored session (a policy change).
    pub fn forget_sessions(&self) {
        self.configs.expire();
    }

    /// The name to give rustls where it wants one; it is not sent and not checked.
    ///
    /// rustls files sessions under it. A client of several servers does better with
    /// [`Self::server_name_for`].
    pub fn server_name() -> ServerName<'static> {
        Self::server_name_for("")
    }

    /// A name under which sessions with `server` (an address, an expected id: any text) are
    /// filed apart from those with others. It is not sent and not checked.
    pub fn server_name_for(server: &str) -> ServerName<'static> {
        let digest = crate::verify::sha256(server.as_bytes());
        let label = hex::encode(&digest[..16]);
        match ServerName::try_from(format!("{label}.svid.invalid")) {
            Ok(name) => name,
            // Not reached: hexadecimal labels make a DNS name. Any address would do as well.
            Err(_) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
        }
    }

    fn build(&self, identity: &Identity) -> Result<ClientConfig, TlsError> {
        let svid = identity.presentable()?;
        let verifier = PeerVerifier::new(self.source.clone(), true);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(self.options.tls12))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(OwnKey(svid.certified_key().clone())));
        config.alpn_protocols.clone_from(&self.options.alpn);
        config.enable_sni = false;
        // As on the server side: for a refusal that the peer can read.
        config.enable_secret_extraction = true;
        config.resumption = if self.options.resumption {
            Resumption::in_memory_sessions(CLIENT_SESSIONS)
        } else {
            Resumption::disabled()
        };
        Ok(config)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The SVID, if there is one that is valid by the clock of this machine.
    pub(super) fn presentable(&self) -> Result<&X509Svid, TlsError> {
        let svid = self.svid.as_deref().ok_or(TlsError::NoSvid)?;
        let not_after = svid.not_after();
        if not_after <= SystemTime::now() {
            let id = svid.id().clone();
            return Err(TlsError::SvidExpired { id, not_after });
        }
        Ok(svid)
    }
}

fn identify(
    source: &IdentitySource,
    peer_chain: Option<&[CertificateDer<'_>]>,
    now: SystemTime,
) -> Result<PeerIdentity, VerifyError> {
    let identity = source.load();
    source.verifier().verify(
        peer_chain.unwrap_or_default(),
        &identity.bundles,
        identity.bundle_generation,
        now,
    )
}

/// Our chain with the authority that issued it behind.
fn with_authority(svid: &X509Svid, identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let trust_domain = svid.id().trust_domain_name();
    let authority = identity
        .bundles
        .get(trust_domain)
        .and_then(|bundle| pinned::issuer_of(svid.chain(), bundle.x509_authorities()))
        .ok_or_else(|| TlsError::NoAuthority {
            id: svid.id().clone(),
        })?;
    let mut chain = svid.chain().to_vec();
    if !chain.contains(authority) {
        chain.push(authority.clone());
    }
    let key = svid.certified_key().key.clone();
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn versions(tls12: bool) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    if tls12 { &BOTH } else { &ONLY_TLS13 }
}

/// The one cryptography provider: aws-lc-rs, X25519MLKEM768 first among key exchanges,
/// `TLS_AES_128_GCM_SHA256` first among cipher suites: the hashes of a handshake are a tenth
/// cheaper than with SHA-384, and 128 bits are what P-256 leaves give anyway.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = default_provider();
        let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
        // Stable: the others stay in rustls' order.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != first);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| provider().signature_verification_algorithms);
    *ALGORITHMS
}
