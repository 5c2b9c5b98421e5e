//! Each direction ends by itself, and an end that is not clean is a reset to the other side.
#![allow(clippy::unwrap_used)]
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use std::io::ErrorKind;

use relay::{Deadlines, End};
use rig::{CASES, Rig, read_exactly, read_to_end};
use rustls::version::TLS13;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn close_notify_becomes_shutdown_and_the_answer_still_flows() {
    for (role, version) in CASES {
        let mut rig = Rig::new(role, version, Deadlines::default()).await;
        rig.peer.write_all(b"request").await.unwrap();
        rig.peer.shutdown().await.unwrap();
        let (request, end) = read_to_end(&mut rig.app).await;
        assert_eq!(
            (request.as_slice(), end.is_ok()),
            (b"request".as_slice(), true)
        );
        rig.app.write_all(&[7; 500_000]).await.unwrap();
        rig.app.shutdown().await.unwrap();
        let (answer, end) = read_to_end(&mut rig.peer).await;
        assert_eq!(end.unwrap(), 500_000, "a clean end after close_notify");
        assert!(answer.iter().all(|byte| *byte == 7));
        assert!(matches!(rig.end().await, End::Complete));
    }
}

#[tokio::test]
async fn plain_end_becomes_close_notify_and_the_peer_may_go_on() {
    for (role, version) in CASES {
        let mut rig = Rig::new(role, version, Deadlines::default()).await;
        rig.app.write_all(b"banner").await.unwrap();
        rig.app.shutdown().await.unwrap();
        let (banner, end) = read_to_end(&mut rig.peer).await;
        assert_eq!((banner.as_slice(), end.unwrap()), (b"banner".as_slice(), 6));
        rig.peer.write_all(&[9; 500_000]).await.unwrap();
        rig.peer.shutdown().await.unwrap();
        let (rest, end) = read_to_end(&mut rig.app).await;
        assert_eq!(end.unwrap(), 500_000);
        assert!(rest.iter().all(|byte| *byte == 9));
        assert!(matches!(rig.end().await, End::Complete));
    }
}

/// What a side does to end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Clean,
    /// TCP end without close_notify; for the application the same as clean.
    Bare,
    Reset,
}

fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// All nine pairs, the peer first and the application first.
#[tokio::test]
async fn matrix() {
    let endings = [Ending::Clean, Ending::Bare, Ending::Reset];
    for first in endings {
        for second in endings {
            for peer_first in [true, false] {
                let case = format!("first {first:?}, then {second:?}, peer first: {peer_first}");
                let rig = Rig::new(rig::Role::Server, &TLS13, Deadlines::default()).await;
                let Rig {
                    mut peer,
                    mut app,
                    relay,
                    ..
                } = rig;
                peer.write_all(b"ping").await.unwrap();
                assert_eq!(read_exactly(&mut app, 4).await, b"ping");
                app.write_all(b"pong").await.unwrap();
                assert_eq!(read_exactly(&mut peer, 4).await, b"pong");
                let (peer_ending, app_ending) = if peer_first {
                    (first, second)
                } else {
                    (second, first)
                };
                let clean = peer_ending == Ending::Clean && app_ending != Ending::Reset;
                for peers_turn in [peer_first, !peer_first] {
                    if peers_turn {
                        end_peer(&mut peer, peer_ending).await;
                        if peer_first {
                            let (_, seen) = read_to_end(&mut app).await;
                            match peer_ending {
                                Ending::Clean => assert_eq!(seen.unwrap(), 0, "{case}"),
                                _ => assert_eq!(
                                    seen.unwrap_err().kind(),
                                    ErrorKind::ConnectionReset,
                                    "{case}"
                                ),
                            }
                        }
                    } else {
                        match app_ending {
                            Ending::Reset => {
                                reset(&app);
                                app = TcpStream::from_std(std_pair()).unwrap();
                            }
                            _ => drop(app.shutdown().await),
                        }
                        if !peer_first {
                            let (_, seen) = read_to_end(&mut peer).await;
                            match app_ending {
                                Ending::Reset => assert!(seen.is_err(), "{case}"),
                                _ => assert_eq!(seen.unwrap(), 0, "{case}"),
                            }
                        }
                    }
                }
                let end = rig::end(relay).await;
                assert_eq!(matches!(end, End::Complete), clean, "{case}: {end:?}");
            }
        }
    }
}

/// Some connected socket to put where another was dropped.
fn std_pair() -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

async fn end_peer(peer: &mut rig::Peer, ending: Ending) {
    match ending {
        Ending::Clean => drop(peer.shutdown().await),
        Ending::Bare => {
            let (socket, _) = peer.get_mut();
            drop(socket.shutdown().await);
        }
        Ending::Reset => {
            let (socket, _) = peer.get_mut();
            reset(socket);
            *socket = TcpStream::from_std(std_pair()).unwrap();
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_read_arrives_although_the_application_closed() {
    let mut rig = Rig::server().await;
    // The application answers and closes with the request unread: its kernel resets.
    rig.peer.write_all(b"a request nobody reads").await.unwrap();
    rig.app.readable().await.unwrap();
    rig.app.write_all(b"503").await.unwrap();
    drop(rig.app);
    let mut answer = Vec::new();
    let _ = rig.peer.read_to_end(&mut answer).await;
    assert_eq!(answer, b"503");
    let end = rig::end(rig.relay).await;
    assert!(
        matches!(
            end,
            End::PlainSocket(_) | End::TlsTruncated | End::TlsSocket(_)
        ),
        "{end:?}"
    );
}

#[tokio::test]
async fn dropping_the_future_resets_both() {
    let mut rig = Rig::server().await;
    rig.peer.write_all(b"ping").await.unwrap();
    assert_eq!(read_exactly(&mut rig.app, 4).await, b"ping");
    rig.relay.abort();
    let (_, seen) = read_to_end(&mut rig.app).await;
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (_, seen) = read_to_end(&mut rig.peer).await;
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
