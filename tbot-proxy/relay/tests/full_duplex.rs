//! Large transfers in both directions at once, and the smallest writes, arrive whole and in order.
#![allow(clippy::unwrap_used)]
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use relay::{Deadlines, End};
use rig::{CASES, Rig, Role, read_exactly, soon};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

/// Byte number `at` of a stream that never repeats within the sizes used.
fn pattern(seed: u64, at: u64) -> u8 {
    let mixed = (at / 8)
        .wrapping_add(seed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[(at % 8) as usize]
}

async fn send(mut to: impl AsyncWrite + Unpin, seed: u64, count: u64, step: usize) {
    let mut at = 0;
    while at < count {
        let end = (at + step as u64).min(count);
        let chunk: Vec<u8> = (at..end).map(|at| pattern(seed, at)).collect();
        to.write_all(&chunk).await.unwrap();
        at = end;
    }
    to.shutdown().await.unwrap();
}

async fn check(mut from: impl AsyncRead + Unpin, seed: u64, count: u64) {
    let mut buffer = vec![0; 200_000];
    let mut at = 0;
    loop {
        let read = from.read(&mut buffer).await.unwrap();
        if read == 0 {
            assert_eq!(at, count);
            return;
        }
        for byte in &buffer[..read] {
            assert_eq!(*byte, pattern(seed, at), "byte {at}");
            at += 1;
        }
    }
}

async fn both_ways(rig: Rig, count: u64, step: usize) {
    let (peer_read, peer_write) = split(rig.peer);
    let (app_read, app_write) = split(rig.app);
    let tasks = [
        tokio::spawn(send(peer_write, 1, count, step)),
        tokio::spawn(send(app_write, 2, count, step)),
        tokio::spawn(check(peer_read, 2, count)),
        tokio::spawn(check(app_read, 1, count)),
    ];
    for task in tasks {
        task.await.unwrap();
    }
    assert!(matches!(rig::end(rig.relay).await, End::Complete));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_each_way() {
    let rig = Rig::new(Role::Server, &TLS13, Deadlines::default()).await;
    both_ways(rig, 64 << 20, 100_000).await;
}

#[tokio::test]
async fn odd_sizes_in_every_case() {
    for (role, version) in CASES {
        let rig = Rig::new(role, version, Deadlines::default()).await;
        soon(both_ways(rig, 3_000_001, 7_777)).await;
    }
}

#[tokio::test]
async fn tiny_writes() {
    for (role, version) in CASES {
        let rig = Rig::new(role, version, Deadlines::default()).await;
        soon(both_ways(rig, 2_000, 1)).await;
    }
}

/// Key updates (TLS 1.3) while bytes flow, which ask the relay for new keys of its own too.
#[tokio::test]
async fn key_update_in_mid_stream() {
    for role in [Role::Server, Role::Client] {
        let mut rig = Rig::new(role, &TLS13, Deadlines::default()).await;
        for round in 0..10_u8 {
            match &mut rig.peer {
                tokio_rustls::TlsStream::Client(peer) => peer.get_mut().1.refresh_traffic_keys(),
                tokio_rustls::TlsStream::Server(peer) => peer.get_mut().1.refresh_traffic_keys(),
            }
            .unwrap();
            rig.peer.write_all(&[round; 5_000]).await.unwrap();
            assert_eq!(read_exactly(&mut rig.app, 5_000).await, [round; 5_000]);
            rig.app.write_all(&[round; 5_000]).await.unwrap();
            assert_eq!(read_exactly(&mut rig.peer, 5_000).await, [round; 5_000]);
        }
    }
}
