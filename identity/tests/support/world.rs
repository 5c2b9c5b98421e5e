//! One trust domain with a server and a client.
#![allow(dead_code)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{
    ClientOptions, ClientTls, IdentitySource, PeerIdentity, ServerOptions, ServerTls,
    TrustBundleSet, VerifyError, testing::TestCa,
};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};

use super::pipe::{self, Failure};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) ca: TestCa,
    pub(crate) server_source: Arc<IdentitySource>,
    pub(crate) client_source: Arc<IdentitySource>,
    pub(crate) server: Arc<ServerTls>,
    pub(crate) client: Arc<ClientTls>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(ServerOptions::default(), ClientOptions::default())
    }

    pub(crate) fn with(server: ServerOptions, client: ClientOptions) -> Self {
        let ca = TestCa::new("example.org");
        let bundles = || TrustBundleSet::new([ca.bundle()]);
        let server_source = IdentitySource::with(ca.svid("/server", HOUR), bundles());
        let client_source =
            IdentitySource::with(ca.intermediate().svid("/client", HOUR), bundles());
        Self {
            server: ServerTls::new(server_source.clone(), server),
            client: ClientTls::new(client_source.clone(), client),
            ca,
            server_source,
            client_source,
        }
    }

    /// A connection with the current configs, through its handshake.
    pub(crate) fn connect(&self) -> Result<Connection, Failure> {
        let mut connection = self.begin();
        pipe::run(&mut connection.client, &mut connection.server)?;
        Ok(connection)
    }

    /// A connection whose handshake has not begun.
    pub(crate) fn begin(&self) -> Connection {
        let server = ServerConnection::new(self.server.config().unwrap()).unwrap();
        let config = self.client.config().unwrap();
        let client = ClientConnection::new(config, ClientTls::server_name()).unwrap();
        Connection { client, server }
    }

    /// Who the client is, in the server's eyes.
    pub(crate) fn client_of(&self, connection: &Connection) -> Result<PeerIdentity, VerifyError> {
        self.server
            .identify(connection.server.peer_certificates(), SystemTime::now())
    }

    /// Who the server is, in the client's eyes.
    pub(crate) fn server_of(&self, connection: &Connection) -> Result<PeerIdentity, VerifyError> {
        self.client
            .identify(connection.client.peer_certificates(), SystemTime::now())
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

impl Connection {
    pub(crate) fn is_resumed(&self) -> bool {
        let kinds = (self.client.handshake_kind(), self.server.handshake_kind());
        match kinds {
            (Some(HandshakeKind::Resumed), Some(HandshakeKind::Resumed)) => true,
            (Some(_), Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)) => {
                false
            }
            other => panic!("the sides disagree: {other:?}"),
        }
    }
}
