//! Nobody is served who is not allowed: a record, no dial, no byte.

use std::{io, sync::Arc};

use identity::{IdentitySource, ServerOptions, ServerTls, TrustBundleSet, testing::TestCa};
use policy::{PeerPolicy, PeerRule};
use proxy::{CloseReason, Direction};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, SignatureScheme, client::ResolvesClientCert, pki_types::ServerName,
        sign::CertifiedKey,
    },
};

use crate::support::{
    CLIENT, Echo, HOUR, Peer, Proxy, WEB, config, echoed, plain, reset, source, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbound_refuses_who_is_not_allowed_or_denied() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let everyone = PeerRule::TrustDomain(ca.trust_domain().clone());
    let banned = PeerRule::Id(format!("{CLIENT}/banned").parse().unwrap());

    let error = Peer::new(&ca, "/stranger").refused(&proxy.addr()).await;
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::PeerNotAllowed);
    assert_eq!(
        record.peer_id.unwrap().as_str(),
        "spiffe://example.org/stranger"
    );
    assert_eq!(record.local_id.unwrap().as_str(), WEB);
    assert_eq!(record.detail.unwrap(), "no allow rule matches");
    assert!(record.peer_serial.is_some() && record.client_addr.is_some());

    proxy.update(|config| config.peers = PeerPolicy::new(vec![banned], vec![everyone]));
    Peer::new(&ca, "/client/banned")
        .refused(&proxy.addr())
        .await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::PeerDenied);
    assert_eq!(
        record.rule.unwrap(),
        "id=spiffe://example.org/client/banned"
    );

    assert_eq!(app.accepted(), 0);
    Peer::new(&ca, "/client").admitted(&proxy.addr()).await;
    assert_eq!(app.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbound_refuses_who_proves_nothing() {
    let ca = TestCa::new("example.org");
    // Same name, another key: an impostor's authority.
    let impostor = TestCa::new("example.org");
    let foreign = TestCa::new("foreign.example");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);

    for stranger in [&impostor, &foreign] {
        let trust = TrustBundleSet::new([ca.bundle()]);
        let source = IdentitySource::with(stranger.svid("/client", HOUR), trust);
        Peer::of(source).refused(&proxy.addr()).await;
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::PeerUnverified, "{record:?}");
        assert_eq!(record.peer_id, None);
    }

    // No certificate at all.
    let mut bare = (*client_config(&ca)).clone();
    bare.client_auth_cert_resolver = Arc::new(NoCertificate);
    let tcp = TcpStream::connect(proxy.addr().to_string()).await.unwrap();
    let name = ServerName::try_from("none.invalid").unwrap();
    let read = async {
        let mut stream = TlsConnector::from(Arc::new(bare))
            .connect(name, tcp)
            .await?;
        stream.read(&mut [0; 1]).await
    };
    assert!(within(read).await.is_err());
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::PeerUnverified, "{record:?}");
    assert_eq!(app.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_sends_no_byte_to_an_unexpected_server() {
    let ca = TestCa::new("example.org");
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = server.local_addr().unwrap().into();
    // Who it is, and whether its certificate is good at all.
    let impostor = TestCa::new("example.org");
    let servers = [
        (source(&ca, "/other"), CloseReason::PeerNotAllowed),
        (
            IdentitySource::with(
                impostor.svid("/web", HOUR),
                TrustBundleSet::new([ca.bundle()]),
            ),
            CloseReason::PeerUnverified,
        ),
    ];
    let proxy = Proxy::start(
        config(Direction::Outbound, &to, &[WEB]),
        &source(&ca, "/client"),
    );

    for (shown, reason) in servers {
        let tls = ServerTls::new(shown, ServerOptions::default());
        let mut client = plain(&proxy.addr()).await;
        client
            .write_all(b"a secret of the application")
            .await
            .unwrap();

        let (tcp, _) = within(server.accept()).await.unwrap();
        let heard = async {
            let mut stream = TlsAcceptor::from(tls.config().unwrap()).accept(tcp).await?;
            let mut heard = Vec::new();
            let end = stream.read_to_end(&mut heard).await;
            assert_eq!(heard, b"");
            end
        };
        assert!(within(heard).await.is_err(), "a clean end");

        let error = within(client.read(&mut [0])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let record = proxy.records.next().await;
        assert_eq!(record.reason, reason, "{record:?}");
        assert_eq!((record.bytes_in, record.bytes_out), (0, 0));
        assert_eq!(record.server_addr.as_ref(), Some(&to));
        assert_eq!(record.local_id.unwrap().as_str(), CLIENT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_proxies_have_the_record_of_a_refusal() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let inbound = Proxy::inbound(&ca, &app.addr, &["spiffe://example.org/someone-else"]);
    let outbound = Proxy::outbound(&ca, &inbound.addr());

    reset(&outbound.addr()).await;
    let there = inbound.records.next().await;
    assert_eq!(there.reason, CloseReason::PeerNotAllowed);
    assert_eq!(there.peer_id.unwrap().as_str(), CLIENT);
    let here = outbound.records.next().await;
    assert_eq!(here.reason, CloseReason::TlsError, "{here:?}");
    assert!(here.detail.unwrap().contains("AccessDenied"));
    assert_eq!(here.peer_id.unwrap().as_str(), WEB);
    assert_eq!(app.accepted(), 0);

    inbound.update(|config| config.peers = crate::support::allow(&[CLIENT]));
    echoed(&mut plain(&outbound.addr()).await, b"now").await;
}

fn client_config(ca: &TestCa) -> Arc<ClientConfig> {
    identity::ClientTls::new(source(ca, "/client"), identity::ClientOptions::default())
        .config()
        .unwrap()
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
