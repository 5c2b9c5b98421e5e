//! Peers that stall or flood handshakes: honest ones are served meanwhile, and the stalled ones end.

use std::time::Duration;

use identity::testing::TestCa;
use proxy::{CloseReason, Direction, Limits};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::support::{CLIENT, Echo, Peer, Proxy, config, echoed, finish, plain, source};

/// The first bytes of a ClientHello's record, and no more.
const STALLED: &[u8] = &[22, 3, 1, 1, 0, 1];

async fn stall(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let mut stalled = Vec::new();
    for number in 0..count {
        let mut stream = plain(&proxy.addr()).await;
        if number % 2 == 0 {
            stream.write_all(STALLED).await.unwrap();
        }
        stalled.push(stream);
    }
    stalled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_peers_are_served_while_others_stall() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let peer = Peer::new(&ca, "/client");
    let mut before = peer.admitted(&proxy.addr()).await;

    let stalled = stall(&proxy, 300).await;
    for _ in 0..20 {
        finish(peer.admitted(&proxy.addr()).await).await;
        assert_eq!(proxy.records.next().await.reason, CloseReason::Complete);
        echoed(&mut before, b"still here").await;
    }
    // None of the stalled had to give way for that: there was room.
    assert!(proxy.service.connections() > 300);
    drop(stalled);
    for _ in 0..300 {
        assert_eq!(
            proxy.records.next().await.reason,
            CloseReason::ClientClosedEarly
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_of_stalled_peers_gives_way() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits.max_connections = 20;
    // They would hold out for longer than the test may last.
    config.limits.handshake = Duration::from_secs(600);
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let peer = Peer::new(&ca, "/client");
    let mut before = peer.admitted(&proxy.addr()).await;

    let _stalled = stall(&proxy, 60).await;
    let honest = peer.admitted(&proxy.addr()).await;
    echoed(&mut before, b"a proven peer does not give way").await;
    finish(honest).await;
    let mut gave_way = 0;
    loop {
        let record = proxy.records.next().await;
        match record.reason {
            CloseReason::Overload => gave_way += 1,
            CloseReason::Complete => break,
            other => panic!("{other}: {record:?}"),
        }
    }
    // Ten found room (half of it); for each other, and for the honest one, one gave way.
    assert_eq!(gave_way, 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_one_that_waits_one_gives_way() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits.max_connections = 20;
    config.limits.handshake = Duration::from_secs(600);
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let peer = Peer::new(&ca, "/client");
    let mut proven = Vec::new();
    for _ in 0..14 {
        proven.push(peer.admitted(&proxy.addr()).await);
    }
    let _stalled = stall(&proxy, 6).await;
    proxy.open(20).await;

    for round in 1..=3 {
        let honest = peer.admitted(&proxy.addr()).await;
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::Overload, "{record:?}");
        assert!(record.duration >= Duration::from_secs(1), "{record:?}");
        assert_eq!(proxy.service.connections(), 20);
        // Those that are left are younger than a second no more, and stay: nobody waits.
        assert_eq!(proxy.records.take().await.len(), 0, "round {round}");
        proven.push(honest);
    }
    for stream in &mut proven {
        echoed(stream, b"a proven peer does not give way").await;
    }
    assert_eq!(proxy.service.connections(), 20);
    assert_eq!(proxy.records.take().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_waits_nobody_gives_way() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits.max_connections = 1;
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let peer = Peer::new(&ca, "/client");

    // Slower than the second after which it would give way: that nothing happens has no event.
    let slow = plain(&proxy.addr()).await;
    proxy.open(1).await;
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let mut slow = peer.over(slow).await.unwrap();
    echoed(&mut slow, b"alone").await;
    finish(slow).await;
    assert_eq!(proxy.records.next().await.reason, CloseReason::Complete);

    // And where one waits, it does.
    let _stalled = stall(&proxy, 1).await;
    finish(peer.admitted(&proxy.addr()).await).await;
    assert_eq!(proxy.records.next().await.reason, CloseReason::Overload);
    assert_eq!(proxy.records.next().await.reason, CloseReason::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_handshake_ends_at_its_deadline() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits = Limits {
        handshake: Duration::from_millis(200),
        ..Limits::default()
    };
    let proxy = Proxy::start(config, &source(&ca, "/web"));
    let _stalled = stall(&proxy, 2).await;
    for _ in 0..2 {
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::HandshakeTimeout);
        assert_eq!(record.detail.unwrap(), "not complete within 200ms");
        assert_eq!(record.tls_version, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_is_served_in_turn() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut config = config(Direction::Inbound, &app.addr, &[CLIENT]);
    config.limits.max_connections = 16;
    let proxy = Proxy::start(config, &source(&ca, "/web"));

    let mut flood = JoinSet::new();
    for _ in 0..200 {
        // Each its own client, so that no session is resumed.
        let peer = Peer::new(&ca, "/client");
        let addr = proxy.addr();
        flood.spawn(async move { finish(peer.admitted(&addr).await).await });
    }
    while let Some(served) = flood.join_next().await {
        served.unwrap();
    }
    for _ in 0..200 {
        assert_eq!(proxy.records.next().await.reason, CloseReason::Complete);
    }
}
