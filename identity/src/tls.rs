//! rustls configurations that follow an [`IdentitySource`].
use crate::{IdentitySource, PeerIdentity, VerifyError};
use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};
use std::{sync::Arc, time::SystemTime};

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
#[derive(Debug)]
pub struct ServerTls {
    _private: (),
}
impl ServerTls {
    /// Follows `source`.
    pub fn new(source: Arc<IdentitySource>, options: ServerOptions) -> Arc<Self> {
        let _ = (source, options);
        unimplemented!()
    }
    /// The config of the current generation.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        unimplemented!()
    }
    /// Who the peer is *now*; to be called after every handshake, resumed ones too.
    pub fn identify(
        &self,
        peer_chain: Option<&[CertificateDer<'_>]>,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        let _ = (peer_chain, now);
        unimplemented!()
    }
    /// Makes every ticket handed out so far worthless (a policy change).
    pub fn forget_sessions(&self) {
        unimplemented!()
    }
}

/// Client side: one `ClientConfig` per identity generation.
#[derive(Debug)]
pub struct ClientTls {
    _private: (),
}
impl ClientTls {
    /// Follows `source`.
    pub fn new(source: Arc<IdentitySource>, options: ClientOptions) -> Arc<Self> {
        let _ = (source, options);
        unimplemented!()
    }
    /// The config of the current generation.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        unimplemented!()
    }
    /// Who the peer is *now*; to be called after every handshake, resumed ones too.
    pub fn identify(
        &self,
        peer_chain: Option<&[CertificateDer<'_>]>,
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        let _ = (peer_chain, now);
        unimplemented!()
    }
    /// Drops every stored session (a policy change).
    pub fn forget_sessions(&self) {
        unimplemented!()
    }
    /// The name to give rustls where it wants one; it is not sent and not checked.
    pub fn server_name() -> rustls::pki_types::ServerName<'static> {
        unimplemented!()
    }
}

/// Why there is no TLS config.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// stub
    #[error("stub")]
    Stub,
}
