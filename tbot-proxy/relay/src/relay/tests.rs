//! What a relay holds: nothing while idle, a bounded amount while a reader stalls.
use rustls::version::TLS13;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::{accept, connect};

use crate::support::{Pki, localhost, tcp_pair};

async fn rig() -> (client::TlsStream<TcpStream>, Relay, TcpStream) {
    let pki = Pki::new();
    let (ours, theirs) = tcp_pair().await;
    let connector = TlsConnector::from(Arc::new(pki.client()));
    let accepting = accept(ours.into(), Arc::new(pki.server(&TLS13)));
    let (ours, theirs) = tokio::join!(accepting, connector.connect(localhost(), theirs));
    let (app, plain) = tcp_pair().await;
    let relay = relay(
        ours.unwrap(),
        plain.into(),
        Deadlines::default(),
        Arc::default(),
    );
    (theirs.unwrap(), relay, app)
}

fn held(relay: &Relay) -> usize {
    relay.tls.incoming.capacity() + relay.tls.received.capacity() + relay.tls.outgoing.capacity()
}

#[tokio::test]
async fn idle_after_traffic_holds_no_buffer() {
    let (mut peer, mut relay, mut app) = rig().await;
    let traffic = async {
        let (mut from_app, mut to_app) = app.split();
        let (mut from_peer, mut to_peer) = tokio::io::split(&mut peer);
        let request = async {
            to_peer.write_all(&[1; 1_000_000]).await.unwrap();
            to_peer.flush().await.unwrap();
        };
        let response = async { to_app.write_all(&[2; 1_000_000]).await.unwrap() };
        let mut request_read = vec![0; 1_000_000];
        let mut response_read = vec![0; 1_000_000];
        let reads = async {
            from_app.read_exact(&mut request_read).await.unwrap();
        };
        let reads_back = async {
            from_peer.read_exact(&mut response_read).await.unwrap();
        };
        tokio::join!(request, response, reads, reads_back);
    };
    tokio::select! {
        end = &mut relay => panic!("{end:?}"),
        () = traffic => {}
    }
    assert_eq!(held(&relay), 0);
}

#[tokio::test]
async fn part_of_a_record_is_all_that_is_kept() {
    let (mut peer, mut relay, _app) = rig().await;
    // The header of a record of 1,000 bytes, and ten of them.
    let part = [23, 3, 3, 3, 232, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    peer.get_mut().0.write_all(&part).await.unwrap();
    let arrived = std::future::poll_fn(|cx| {
        assert!(Pin::new(&mut relay).poll(cx).is_pending());
        match relay.tls.incoming.len() {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    });
    arrived.await;
    assert_eq!(held(&relay), part.len());
}

#[tokio::test]
async fn a_stalled_reader_bounds_memory_and_leaves_the_other_direction_alone() {
    let (mut peer, mut relay, mut app) = rig().await;
    let chunk = vec![7; 100_000];
    // The application reads nothing until the peer cannot send any more.
    let mut most = 0;
    loop {
        let sent = async {
            tokio::select! {
                end = &mut relay => panic!("{end:?}"),
                sent = peer.write_all(&chunk) => sent.unwrap(),
            }
        };
        let stalled = timeout(Duration::from_millis(300), sent).await.is_err();
        most = most.max(held(&relay));
        if stalled {
            break;
        }
    }
    assert!(most > 0, "the stall was reached");
    assert!(most <= 200_000, "{most} bytes held");
    let mut answer = [0; 6];
    tokio::select! {
        end = &mut relay => panic!("{end:?}"),
        () = async {
            app.write_all(b"answer").await.unwrap();
            peer.read_exact(&mut answer).await.unwrap();
        } => {}
    }
    assert_eq!(&answer, b"answer");
}

/// However much waits, one poll moves a bounded part of it and asks to be polled again.
#[tokio::test]
async fn one_turn_is_bounded() {
    let (mut peer, mut relay, app) = rig().await;
    let reading = tokio::spawn(async move {
        let mut app = app;
        tokio::io::copy(&mut app, &mut tokio::io::sink()).await
    });
    let chunk = vec![7; 100_000];
    let mut total = 0;
    for _ in 0..50 {
        // Fill the sockets while nobody polls the relay.
        while timeout(Duration::from_millis(20), peer.write_all(&chunk))
            .await
            .is_ok()
        {}
        let before = relay.counters.tls_to_plain.load(Ordering::Relaxed);
        let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut relay).poll(cx))).await;
        assert!(polled.is_pending());
        let moved = relay.counters.tls_to_plain.load(Ordering::Relaxed) - before;
        assert!(
            moved <= (TURN + crate::buffers::TLS_READ) as u64,
            "{moved} bytes in one poll"
        );
        total += moved;
    }
    assert!(total > TURN as u64, "{total} bytes in all");
    reading.abort();
}

/// Guards the memory of an idle connection: the futures a proxy holds, and the boxed TLS state.
#[test]
fn sizes() {
    assert!(size_of::<Relay>() <= 320, "relay: {}", size_of::<Relay>());
    assert!(
        size_of::<TlsStream>() <= 160,
        "stream: {}",
        size_of::<TlsStream>()
    );
    let engine = size_of::<crate::engine::Engine>();
    assert!(engine <= 1_600, "engine: {engine}");
}

#[tokio::test]
async fn sizes_of_handshakes() {
    let pki = Pki::new();
    let (ours, theirs) = tcp_pair().await;
    let accepting = accept(ours.into(), Arc::new(pki.server(&TLS13)));
    let connecting = connect(theirs.into(), Arc::new(pki.client()), localhost());
    assert!(
        size_of_val(&accepting) <= 192,
        "accept: {}",
        size_of_val(&accepting)
    );
    assert!(
        size_of_val(&connecting) <= 192,
        "connect: {}",
        size_of_val(&connecting)
    );
}
