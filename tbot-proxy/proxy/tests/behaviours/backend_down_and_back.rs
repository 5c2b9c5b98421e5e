//! What `connect` names goes away and comes back: told apart, recorded, and served again without a restart.

use std::{io, time::Duration};

use identity::testing::TestCa;
use proxy::{Address, CloseReason, Direction, Fault};
use tokio::net::{TcpListener, TcpSocket};

use crate::support::{CLIENT, Echo, Peer, Proxy, WEB, config, echoed, plain, reset, source};

/// An address at which nobody listens, kept from others while `TcpSocket` lives.
fn nobody() -> (TcpSocket, std::net::SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_behind_an_inbound_service() {
    let ca = TestCa::new("example.org");
    let (socket, addr) = nobody();
    let proxy = Proxy::inbound(&ca, &addr.into(), &[CLIENT]);
    let peer = Peer::new(&ca, "/client");

    let error = peer.refused(&proxy.addr()).await;
    // Not a clean end, which would pass for an empty answer.
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
        "{error}"
    );
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::DialFailed, "{record:?}");
    assert_eq!(record.reason.fault(), Fault::Backend);
    assert_eq!(record.peer_id.unwrap().as_str(), CLIENT);
    assert_eq!(record.server_addr, None);
    assert!(record.detail.unwrap().starts_with(&addr.to_string()));

    let app = Echo::on(socket.listen(16).unwrap());
    let mut stream = peer.admitted(&proxy.addr()).await;
    echoed(&mut stream, b"back").await;
    assert_eq!(app.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_an_outbound_service() {
    let ca = TestCa::new("example.org");
    let (socket, addr) = nobody();
    let proxy = Proxy::outbound(&ca, &addr.into());
    reset(&proxy.addr()).await;
    assert_eq!(proxy.records.next().await.reason, CloseReason::DialFailed);
    drop(socket);

    let app = Echo::start().await;
    let mut there = config(Direction::Inbound, &app.addr, &[CLIENT]);
    there.listen = addr.into();
    let _there = Proxy::start(there, &source(&ca, "/web"));
    echoed(&mut plain(&proxy.addr()).await, b"back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_says_nothing() {
    let ca = TestCa::new("example.org");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to: Address = silent.local_addr().unwrap().into();
    let mut config = config(Direction::Outbound, &to, &[WEB]);
    config.limits.handshake = Duration::from_millis(200);
    let proxy = Proxy::start(config, &source(&ca, "/client"));
    reset(&proxy.addr()).await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::HandshakeTimeout);
    assert_eq!(record.server_addr, Some(to));
}
