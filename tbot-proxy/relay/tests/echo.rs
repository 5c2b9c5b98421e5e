//! Bytes arrive unchanged through the relay: both roles, both TLS versions, TCP and Unix, rustls and OpenSSL.
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
};

use relay::{Counters, Deadlines, End, Socket, accept, relay};
use rig::{CASES, Rig, handshake, read_exactly, read_to_end, soon};
use rustls::version::{TLS12, TLS13};
use support::Pki;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};

#[tokio::test]
async fn both_roles_both_versions() {
    for (role, version) in CASES {
        let mut rig = Rig::new(role, version, Deadlines::default()).await;
        rig.peer.write_all(b"question").await.unwrap();
        rig.peer.flush().await.unwrap();
        assert_eq!(read_exactly(&mut rig.app, 8).await, b"question");
        rig.app.write_all(b"the answer").await.unwrap();
        assert_eq!(read_exactly(&mut rig.peer, 10).await, b"the answer");
        assert_eq!(rig.counters.tls_to_plain.load(Ordering::Relaxed), 8);
        assert_eq!(rig.counters.plain_to_tls.load(Ordering::Relaxed), 10);
    }
}

#[tokio::test]
async fn facts_of_the_handshake() {
    for (role, version) in CASES {
        let (ours, _theirs) = handshake(role, version).await;
        assert_eq!(ours.protocol_version(), Some(version.version));
        assert_eq!(ours.peer_certificates().unwrap().len(), 1);
        assert!(!ours.resumed());
        assert_eq!(ours.alpn_protocol(), None);
    }
}

#[tokio::test]
async fn unix_sockets() {
    let (tls, mut peer) = handshake(rig::Role::Server, &TLS13).await;
    let (mut app, plain) = UnixStream::pair().unwrap();
    let counters = Arc::new(Counters::default());
    let relay = tokio::spawn(relay(
        tls,
        Socket::Unix(plain),
        Deadlines::default(),
        counters,
    ));
    peer.write_all(b"question").await.unwrap();
    peer.shutdown().await.unwrap();
    let (question, end) = read_to_end(&mut app).await;
    assert_eq!(
        (question.as_slice(), end.unwrap()),
        (b"question".as_slice(), 8)
    );
    app.write_all(b"answer").await.unwrap();
    drop(app);
    let (answer, end) = read_to_end(&mut peer).await;
    assert_eq!((answer.as_slice(), end.unwrap()), (b"answer".as_slice(), 6));
    assert!(matches!(rig::end(relay).await, End::Complete));
}

#[tokio::test]
async fn openssl_s_client() {
    for version in [&TLS13, &TLS12] {
        let pki = Pki::new();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut openssl = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-servername",
                "localhost",
                "-connect",
            ])
            .arg(listener.local_addr().unwrap().to_string())
            .arg("-CAfile")
            .arg(file("ca.pem", &pki.ca_pem))
            .arg("-cert")
            .arg(file("leaf.pem", &pki.leaf_pem))
            .arg("-key")
            .arg(file("key.pem", &pki.key_pem))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (socket, _) = soon(listener.accept()).await.unwrap();
        let tls = soon(accept(socket.into(), Arc::new(pki.server(version))))
            .await
            .unwrap();
        let (mut app, plain) = support::tcp_pair().await;
        let counters = Arc::new(Counters::default());
        let relay = tokio::spawn(relay(tls, plain.into(), Deadlines::default(), counters));
        openssl
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"hello from openssl\n")
            .unwrap();
        assert_eq!(read_exactly(&mut app, 19).await, b"hello from openssl\n");
        let answer = vec![b'x'; 300_000];
        app.write_all(&answer).await.unwrap();
        app.shutdown().await.unwrap();
        let output = tokio::task::spawn_blocking(move || openssl.wait_with_output().unwrap());
        assert_eq!(soon(output).await.unwrap().stdout, answer);
        // It answers our close_notify with its own.
        let mut rest = Vec::new();
        let _ = soon(app.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
        let end = rig::end(relay).await;
        assert!(matches!(end, End::Complete | End::TlsTruncated), "{end:?}");
    }
}

/// TLS 1.2 renegotiation is refused, and nothing of it reaches the application.
#[tokio::test]
async fn renegotiation_is_refused() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    let identity = dir.path().join("identity.pem");
    std::fs::write(&identity, format!("{}{}", pki.leaf_pem, pki.key_pem)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut openssl = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_2",
            "-servername",
            "localhost",
            "-connect",
        ])
        .arg(listener.local_addr().unwrap().to_string())
        .arg("-cert")
        .arg(&identity)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (socket, _) = soon(listener.accept()).await.unwrap();
    let tls = soon(accept(socket.into(), Arc::new(pki.server(&TLS12))))
        .await
        .unwrap();
    let (mut app, plain) = support::tcp_pair().await;
    let relay = tokio::spawn(relay(
        tls,
        plain.into(),
        Deadlines::default(),
        Arc::default(),
    ));
    let stdin = openssl.stdin.as_mut().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    assert_eq!(read_exactly(&mut app, 6).await, b"hello\n");
    stdin.write_all(b"R\n").unwrap();
    let output = tokio::task::spawn_blocking(move || openssl.wait_with_output().unwrap());
    let output = soon(output).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no renegotiation"), "{said}");
    let end = rig::end(relay).await;
    assert!(!matches!(end, End::Complete), "{end:?}");
    assert!(read_to_end(&mut app).await.0.is_empty());
}
