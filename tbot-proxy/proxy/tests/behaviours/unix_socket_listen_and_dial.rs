//! Unix sockets on either plain side.

use std::{io::ErrorKind, os::unix::fs::PermissionsExt};

use identity::testing::TestCa;
use proxy::{Address, CloseReason, Direction};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
};

use crate::support::{CLIENT, PATIENCE, Peer, Proxy, WEB, config, echoed, finish, source, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_socket_to_socket_over_mtls() {
    let ca = TestCa::new("example.org");
    let dir = tempfile::tempdir().unwrap();
    let (app_path, client_path) = (dir.path().join("app.sock"), dir.path().join("client.sock"));
    let app = UnixListener::bind(&app_path).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = app.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.shutdown().await.unwrap();
            });
        }
    });
    let inbound = Proxy::inbound(&ca, &Address::Unix(app_path.clone()), &[CLIENT]);
    let mut config = config(Direction::Outbound, &inbound.addr(), &[WEB]);
    config.listen = Address::Unix(client_path.clone());
    let Proxy { service, records } = Proxy::start(config, &source(&ca, "/client"));
    assert_eq!(service.local_addr(), Address::Unix(client_path.clone()));
    let mode = std::fs::metadata(&client_path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut stream = UnixStream::connect(&client_path).await.unwrap();
    echoed(&mut stream, &vec![9; 300_000]).await;
    finish(stream).await;
    let here = records.next().await;
    assert_eq!(here.reason, CloseReason::Complete, "{here:?}");
    assert_eq!(here.client_addr, None);
    let there = inbound.records.next().await;
    assert_eq!(there.reason, CloseReason::Complete, "{there:?}");
    assert_eq!(there.server_addr, Some(Address::Unix(app_path)));
    assert_eq!((there.bytes_in, there.bytes_out), (300_000, 300_000));

    // A drain takes the file away first: no client finds a socket that nobody serves.
    let held = UnixStream::connect(&client_path).await.unwrap();
    let drain = tokio::spawn(service.drain(PATIENCE));
    within(async {
        while client_path.exists() {
            tokio::task::yield_now().await
        }
    })
    .await;
    let mut held = held;
    echoed(&mut held, b"served still").await;
    finish(held).await;
    assert_eq!(within(drain).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_local_client_sees_the_end_without_a_byte() {
    let ca = TestCa::new("example.org");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.sock");
    let nobody = Address::Unix(dir.path().join("nobody.sock"));
    let mut config = config(Direction::Outbound, &nobody, &[WEB]);
    config.listen = Address::Unix(path.clone());
    let proxy = Proxy::start(config, &source(&ca, "/client"));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let _ = stream.write_all(b"anyone?").await;
    let mut heard = Vec::new();
    // A Unix socket has no reset; what was not read may be told as one.
    let _ = within(stream.read_to_end(&mut heard)).await;
    assert_eq!(heard, b"");
    assert_eq!(proxy.records.next().await.reason, CloseReason::DialFailed);
}

/// What docs/guide/proxy.md says of truncation: on a Unix socket an application sees the end, and only the record tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_transfer_is_told_by_a_reset_over_tcp_and_by_the_record_alone_over_a_unix_socket() {
    let ca = TestCa::new("example.org");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp_addr = tcp.local_addr().unwrap().into();
    for (address, is_tcp) in [(tcp_addr, true), (Address::Unix(path), false)] {
        let proxy = Proxy::inbound(&ca, &address, &[CLIENT]);
        let mut client = Peer::new(&ca, "/client")
            .connect(&proxy.addr())
            .await
            .unwrap();
        client.write_all(b"half of it").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = Vec::new();
        let end = if is_tcp {
            let (mut app, _) = within(tcp.accept()).await.unwrap();
            app.read_exact(&mut [0; 10]).await.unwrap();
            // No close_notify.
            client.get_mut().0.shutdown().await.unwrap();
            within(app.read_to_end(&mut heard)).await
        } else {
            let (mut app, _) = within(unix.accept()).await.unwrap();
            app.read_exact(&mut [0; 10]).await.unwrap();
            client.get_mut().0.shutdown().await.unwrap();
            within(app.read_to_end(&mut heard)).await
        };
        match (is_tcp, end) {
            (true, Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            (false, Ok(0)) => {}
            (_, end) => panic!("{address}: {end:?}"),
        }
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::TlsTruncated, "{record:?}");
        assert_eq!(record.bytes_in, 10);
    }
}
