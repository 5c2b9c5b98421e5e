//! Deadlines end what has stopped, and nothing else.
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use std::{io::ErrorKind, time::Duration};

use relay::{Deadlines, End};
use rig::{Rig, Role, read_exactly, read_to_end};
use rustls::version::TLS13;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

const BOUND: Duration = Duration::from_millis(300);

#[tokio::test]
async fn idle_connection_is_cut() {
    let deadlines = Deadlines {
        idle: Some(BOUND),
        half_close: None,
    };
    let mut rig = Rig::new(Role::Server, &TLS13, deadlines).await;
    let start = Instant::now();
    let (_, seen) = read_to_end(&mut rig.app).await;
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(
        start.elapsed() >= BOUND - Duration::from_millis(50),
        "{:?}",
        start.elapsed()
    );
    assert!(rig.peer.read_u8().await.is_err());
    assert!(matches!(rig.end().await, End::IdleTimeout));
}

#[tokio::test]
async fn bytes_keep_it_alive_and_its_end_is_counted_from_the_last() {
    let deadlines = Deadlines {
        idle: Some(BOUND),
        half_close: None,
    };
    let mut rig = Rig::new(Role::Server, &TLS13, deadlines).await;
    let start = Instant::now();
    for _ in 0..10 {
        sleep(BOUND / 3).await;
        rig.app.write_all(b"x").await.unwrap();
        read_exactly(&mut rig.peer, 1).await;
    }
    assert!(start.elapsed() > 3 * BOUND);
    let last = Instant::now();
    assert!(matches!(rig.end().await, End::IdleTimeout));
    assert!(
        last.elapsed() >= BOUND - Duration::from_millis(50),
        "{:?}",
        last.elapsed()
    );
    assert!(
        last.elapsed() < 2 * BOUND + Duration::from_secs(1),
        "{:?}",
        last.elapsed()
    );
}

#[tokio::test]
async fn half_closed_connection_is_cut_either_way() {
    let deadlines = Deadlines {
        idle: Some(Duration::from_secs(600)),
        half_close: Some(BOUND),
    };
    let mut rig = Rig::new(Role::Server, &TLS13, deadlines).await;
    rig.peer.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut rig.app).await.1.unwrap(), 0);
    let (_app, _peer) = (rig.app, rig.peer);
    assert!(matches!(rig::end(rig.relay).await, End::HalfCloseTimeout));

    let mut rig = Rig::new(Role::Server, &TLS13, deadlines).await;
    rig.app.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut rig.peer).await.1.unwrap(), 0);
    let (_app, _peer) = (rig.app, rig.peer);
    assert!(matches!(rig::end(rig.relay).await, End::HalfCloseTimeout));
}

#[tokio::test]
async fn half_close_bound_waits_for_a_half_close() {
    let deadlines = Deadlines {
        idle: None,
        half_close: Some(BOUND / 3),
    };
    let mut rig = Rig::new(Role::Server, &TLS13, deadlines).await;
    sleep(BOUND).await;
    rig.app.write_all(b"x").await.unwrap();
    assert_eq!(read_exactly(&mut rig.peer, 1).await, b"x");
}
