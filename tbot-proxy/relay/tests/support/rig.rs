//! A relay between a tokio-rustls peer and a plain application.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]
use std::{io, sync::Arc, time::Duration};

use relay::{Counters, Deadlines, End, HandshakeError, TlsStream, accept, connect, relay};
use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{Pki, localhost, tcp_pair};

pub type Peer = tokio_rustls::TlsStream<TcpStream>;

/// The TLS peer, the application, and the relay between them.
pub struct Rig {
    pub peer: Peer,
    pub app: TcpStream,
    pub relay: JoinHandle<End>,
    pub counters: Arc<Counters>,
}

/// What the relay is on its TLS side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    Server,
    Client,
}

pub const CASES: [(Role, &SupportedProtocolVersion); 4] = [
    (Role::Server, &TLS13),
    (Role::Server, &TLS12),
    (Role::Client, &TLS13),
    (Role::Client, &TLS12),
];

impl Rig {
    pub async fn new(
        role: Role,
        version: &'static SupportedProtocolVersion,
        deadlines: Deadlines,
    ) -> Self {
        let (tls, peer) = handshake(role, version).await;
        let (app, plain) = tcp_pair().await;
        let counters = Arc::new(Counters::default());
        let relay = relay(tls, plain.into(), deadlines, counters.clone());
        Self {
            peer,
            app,
            relay: tokio::spawn(relay),
            counters,
        }
    }

    pub async fn server() -> Self {
        Self::new(Role::Server, &TLS13, Deadlines::default()).await
    }

    /// How the relay ended.
    pub async fn end(self) -> End {
        end(self.relay).await
    }
}

pub async fn end(relay: JoinHandle<End>) -> End {
    soon(relay).await.unwrap()
}

/// A bound on what must happen, far above what it takes.
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(30), future)
        .await
        .expect("nothing happened for 30 s")
}

/// Our stream and the peer's.
pub async fn handshake(
    role: Role,
    version: &'static SupportedProtocolVersion,
) -> (TlsStream, Peer) {
    let pki = Pki::new();
    let (client, server) = (Arc::new(pki.client()), Arc::new(pki.server(version)));
    let (ours, theirs) = tcp_pair().await;
    match role {
        Role::Server => {
            let connector = TlsConnector::from(client);
            let (ours, theirs) = soon(async {
                tokio::join!(
                    accept(ours.into(), server),
                    connector.connect(localhost(), theirs)
                )
            })
            .await;
            (ours.unwrap(), theirs.unwrap().into())
        }
        Role::Client => {
            let acceptor = TlsAcceptor::from(server);
            let (ours, theirs) = soon(async {
                tokio::join!(
                    connect(ours.into(), client, localhost()),
                    acceptor.accept(theirs)
                )
            })
            .await;
            (ours.unwrap(), theirs.unwrap().into())
        }
    }
}

/// Handshake as server against whatever `speak` does.
pub async fn accept_from(
    speak: impl AsyncFnOnce(&mut TcpStream),
) -> (Result<TlsStream, HandshakeError>, TcpStream) {
    let server = Arc::new(Pki::new().server(&TLS13));
    let (ours, mut theirs) = tcp_pair().await;
    let accepting = tokio::spawn(accept(ours.into(), server));
    speak(&mut theirs).await;
    (soon(accepting).await.unwrap(), theirs)
}

pub async fn read_exactly(from: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    soon(from.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Everything until the end and how it ended.
pub async fn read_to_end(from: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let result = soon(from.read_to_end(&mut bytes)).await;
    (bytes, result)
}
