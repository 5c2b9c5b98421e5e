//! Idle and half-close deadlines of the relay reach the record under their own names.

use std::time::Duration;

use identity::testing::TestCa;
use proxy::{CloseReason, Direction};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::support::{CLIENT, Echo, Peer, Proxy, config, cut, echoed, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_for_too_long() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits.idle = Some(Duration::from_millis(1500));
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let peer = Peer::new(&ca, "/client");
    let idle = peer.admitted(&proxy.addr()).await;
    let mut busy = peer.admitted(&proxy.addr()).await;
    let busy = tokio::spawn(async move {
        for _ in 0..30 {
            echoed(&mut busy, b"busy").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        busy
    });
    cut(idle).await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::IdleTimeout, "{record:?}");
    assert!(record.duration >= Duration::from_millis(1500));
    // Twice the deadline, and never idle.
    echoed(&mut busy.await.unwrap(), b"alive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_has_ended_and_the_other_says_nothing() {
    let ca = TestCa::new("example.org");
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = mute.local_addr().unwrap().into();
    let mut config = config(Direction::Inbound, &to, &[CLIENT]);
    config.limits.half_close = Some(Duration::from_millis(300));
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let mut stream = Peer::new(&ca, "/client")
        .connect(&proxy.addr())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let (_held, _) = mute.accept().await.unwrap();
    cut(stream).await;
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::HalfCloseTimeout, "{record:?}");
}
