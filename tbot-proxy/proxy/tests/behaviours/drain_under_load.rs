//! A drain serves what was connected, takes no more, and cuts what is left at its deadline.

use std::time::Duration;

use identity::testing::TestCa;
use proxy::CloseReason;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{CLIENT, Echo, PATIENCE, Peer, Proxy, cut, echoed, finish, plain, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_is_served_to_the_end() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let inbound = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let Proxy { service, records } = Proxy::outbound(&ca, &inbound.addr());
    let addr = service.local_addr();

    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = plain(&addr).await;
        echoed(&mut stream, b"before").await;
        streams.push(stream);
    }
    // Connected, yet neither accepted for sure nor served.
    let mut queued = Vec::new();
    for _ in 0..10 {
        queued.push(plain(&addr).await);
    }
    let drain = tokio::spawn(service.drain(PATIENCE));
    // The listener is closed as soon as a connection is refused.
    within(async { while TcpStream::connect(addr.to_string()).await.is_ok() {} }).await;
    streams.extend(queued);
    for mut stream in streams {
        echoed(&mut stream, &vec![5; 200_000]).await;
        assert!(!drain.is_finished());
        finish(stream).await;
    }
    assert_eq!(within(drain).await.unwrap(), 0);
    let served = records.take().await;
    // Those with which the closing of the listener was probed may have been served as well.
    let complete = |record: &&_| -> bool {
        let record: &proxy::ConnectionRecord = record;
        record.reason == CloseReason::Complete && record.bytes_in >= 200_000
    };
    assert_eq!(served.iter().filter(complete).count(), 20, "{served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_at_the_deadline_is_cut_and_counted() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let Proxy { service, records } = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let peer = Peer::new(&ca, "/client");
    let mut stubborn = Vec::new();
    for _ in 0..5 {
        stubborn.push(peer.admitted(&service.local_addr()).await);
    }
    let mut stalled = plain(&service.local_addr()).await;
    stalled.write_all(&[22, 3, 1]).await.unwrap();
    within(async {
        while service.connections() < 6 {
            tokio::task::yield_now().await
        }
    })
    .await;

    assert_eq!(within(service.drain(Duration::from_millis(50))).await, 6);
    // Every record is there at the return.
    let cuts = records.take().await;
    assert_eq!(cuts.len(), 6);
    assert!(
        cuts.iter()
            .all(|record| record.reason == CloseReason::Drained),
        "{cuts:?}"
    );
    for stream in stubborn {
        cut(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_dropped_stops_at_once() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let Proxy { service, records } = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let stream = Peer::new(&ca, "/client")
        .admitted(&service.local_addr())
        .await;
    drop(service);
    cut(stream).await;
    assert_eq!(records.next().await.reason, CloseReason::Stopped);
}
