//! Connections beyond the limit wait their turn in the kernel's queue; a limit that changes counts at once.

use identity::testing::TestCa;
use proxy::{CloseReason, Direction};
use tokio::task::JoinSet;

use crate::support::{CLIENT, Echo, Peer, Proxy, config, echoed, finish, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_beyond_wait_and_are_served() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits.max_connections = 3;
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let addr = proxy.addr();
    let peer = Peer::new(&ca, "/client");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(peer.admitted(&addr).await);
    }

    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let peer = Peer::new(&ca, "/client");
        let addr = addr.clone();
        waiting.spawn(async move { peer.admitted(&addr).await });
    }
    for stream in &mut held {
        echoed(stream, b"held").await;
    }
    assert!(waiting.try_join_next().is_none());
    assert_eq!((proxy.service.connections(), app.accepted()), (3, 3));

    // One ends, one enters.
    finish(held.pop().unwrap()).await;
    held.push(waiting.join_next().await.unwrap().unwrap());
    assert_eq!(proxy.records.next().await.reason, CloseReason::Complete);
    assert!(waiting.try_join_next().is_none());
    assert_eq!(app.accepted(), 4);

    proxy.update(|config| config.limits.max_connections = 100);
    while let Some(stream) = waiting.join_next().await {
        held.push(stream.unwrap());
    }
    for stream in held {
        finish(stream).await;
    }
}
