use std::{io, time::Duration};

use relay::Socket;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::{dial, equip, reset_on_close};
use crate::{Address, CloseReason, resolver::Resolver};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_dialled_socket_has_nodelay_keepalive_off_the_host_and_tells_who_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let named = Address::Tcp {
        host: "localhost".into(),
        port: addr.port(),
    };
    let (Socket::Tcp(stream), answered) = dial(&named, LIMIT, &Resolver::default()).await.unwrap()
    else {
        panic!("not TCP");
    };
    assert_eq!(answered, addr.into());
    assert!(stream.nodelay().unwrap());
    assert!(!SockRef::from(&stream).keepalive().unwrap());
    equip(&stream, "192.0.2.1".parse().unwrap()).unwrap();
    assert!(SockRef::from(&stream).keepalive().unwrap());
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: Address = listener.local_addr().unwrap().into();
    drop(listener);
    let close = dial(&addr, LIMIT, &Resolver::default()).await.unwrap_err();
    assert_eq!(close.reason, CloseReason::DialFailed);
    assert!(close.detail.unwrap().starts_with(&addr.to_string()));

    let close = dial(
        &"unix:///nowhere/app.sock".parse().unwrap(),
        LIMIT,
        &Resolver::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(close.reason, CloseReason::DialFailed);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    // A full queue: the kernel drops further SYNs, as a firewall does.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    let close = loop {
        match dial(
            &addr.into(),
            Duration::from_millis(300),
            &Resolver::default(),
        )
        .await
        {
            Ok(connected) => queued.push(connected),
            Err(close) => break close,
        }
        assert!(queued.len() < 100, "the queue never fills");
    };
    assert_eq!(close.reason, CloseReason::DialTimeout);
    assert!(close.detail.unwrap().contains("within 300ms"));
}

#[tokio::test]
async fn a_refused_client_sees_a_reset_not_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let accepted = Socket::Tcp(accepted);
    reset_on_close(&accepted, true).unwrap();
    drop(accepted);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_released_client_sees_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let accepted = Socket::Tcp(accepted);
    reset_on_close(&accepted, true).unwrap();
    reset_on_close(&accepted, false).unwrap();
    drop(accepted);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}
