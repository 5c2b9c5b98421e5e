//! The side of TLS that a service takes.

use std::{sync::Arc, time::SystemTime};

use identity::{
    ClientOptions, ClientTls, IdentitySource, PeerIdentity, ServerOptions, ServerTls, VerifyError,
};
use rustls::pki_types::{CertificateDer, ServerName};

use crate::{Direction, ServiceConfig};

/// The service's side of TLS.
#[derive(Clone)]
pub(crate) enum Tls {
    Server(Arc<ServerTls>),
    /// The name files the sessions of one server apart from those of another that `connect` once named.
    Client(Arc<ClientTls>, ServerName<'static>),
}

impl Tls {
    pub(crate) fn new(source: &Arc<IdentitySource>, config: &ServiceConfig) -> Self {
        let source = Arc::clone(source);
        match config.direction {
            Direction::Inbound => Self::Server(ServerTls::new(
                source,
                ServerOptions {
                    tls12: config.tls12,
                    resumption: config.resumption,
                    ..ServerOptions::default()
                },
            )),
            Direction::Outbound => Self::Client(
                ClientTls::new(
                    source,
                    ClientOptions {
                        tls12: config.tls12,
                        resumption: config.resumption,
                        ..ClientOptions::default()
                    },
                ),
                ClientTls::server_name_for(&config.connect.to_string()),
            ),
        }
    }

    /// Who the peer with this chain is now.
    pub(crate) fn identify(
        &self,
        chain: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<PeerIdentity, VerifyError> {
        match self {
            Self::Server(tls) => tls.identify(Some(chain), now),
            Self::Client(tls, _) => tls.identify(Some(chain), now),
        }
    }

    /// Makes every ticket and stored session worthless.
    pub(crate) fn forget_sessions(&self) {
        match self {
            Self::Server(tls) => tls.forget_sessions(),
            Self::Client(tls, _) => tls.forget_sessions(),
        }
    }
}
