//! A peer that sends garbage, too much, or nothing costs one error.
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use std::sync::Arc;

use relay::{HandshakeError, accept};
use rig::{accept_from, read_to_end, soon};
use rustls::{Error, InvalidMessage, version::TLS13};
use support::{Pki, localhost, tcp_pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

#[tokio::test]
async fn garbage() {
    let (result, mut peer) = accept_from(async |peer| {
        peer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    assert!(
        matches!(result, Err(HandshakeError::Tls(Error::InvalidMessage(_)))),
        "{result:?}"
    );
    // A plaintext alert: type 21, fatal, decode_error.
    let (answer, _) = read_to_end(&mut peer).await;
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 50]);
}

#[tokio::test]
async fn closed_at_once_or_midway() {
    let (result, _) = accept_from(async |peer| peer.shutdown().await.unwrap()).await;
    assert!(matches!(result, Err(HandshakeError::Closed)), "{result:?}");
    let (result, _) = accept_from(async |peer| {
        peer.write_all(&[22, 3, 1, 1, 0, 1, 0, 0, 252])
            .await
            .unwrap();
        peer.shutdown().await.unwrap();
    })
    .await;
    assert!(matches!(result, Err(HandshakeError::Closed)), "{result:?}");
}

/// One ClientHello in records of a single byte each: it never becomes whole within the bound.
#[tokio::test]
async fn handshake_record_flood_is_bounded() {
    let mut sent = 0;
    let (result, _) = accept_from(async |peer| {
        let hello = [22, 3, 1, 0, 4, 1, 0, 255, 255];
        peer.write_all(&hello).await.unwrap();
        let records = [22, 3, 1, 0, 1, 0].repeat(1_000);
        while peer.write_all(&records).await.is_ok() && sent < 100 << 20 {
            sent += records.len();
        }
    })
    .await;
    assert!(
        matches!(
            result,
            Err(HandshakeError::Tls(Error::InvalidMessage(
                InvalidMessage::MessageTooLarge
            )))
        ),
        "{result:?}"
    );
    assert!(sent < 50 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn empty_records_are_bounded() {
    let (result, _) = accept_from(async |peer| {
        peer.write_all(&[22, 3, 1, 0, 0].repeat(1_000))
            .await
            .unwrap();
    })
    .await;
    assert!(matches!(result, Err(HandshakeError::Tls(_))), "{result:?}");
}

#[tokio::test]
async fn one_byte_at_a_time_is_slow_but_right() {
    let pki = Pki::new();
    let (ours, through) = tcp_pair().await;
    let (theirs, mut split) = tcp_pair().await;
    let connector = TlsConnector::from(Arc::new(pki.client()));
    let splitting = tokio::spawn(async move {
        let (mut from_peer, mut to_peer) = split.split();
        let (mut from_us, mut to_us) = through.into_split();
        let one_by_one = async {
            while let Ok(byte) = from_peer.read_u8().await {
                to_us.write_u8(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let back = async { drop(tokio::io::copy(&mut from_us, &mut to_peer).await) };
        tokio::join!(one_by_one, back);
    });
    let (ours, theirs) = soon(async {
        tokio::join!(
            accept(ours.into(), Arc::new(pki.server(&TLS13))),
            connector.connect(localhost(), theirs)
        )
    })
    .await;
    ours.unwrap().close();
    let (_, end) = read_to_end(&mut theirs.unwrap()).await;
    assert_eq!(end.unwrap(), 0, "close() is a clean end");
    soon(splitting).await.unwrap();
}

#[tokio::test]
async fn a_client_without_certificate() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let (ours, theirs) = tcp_pair().await;
    let mut config = pki.client();
    config.client_auth_cert_resolver = stranger.client().client_auth_cert_resolver;
    let connector = TlsConnector::from(Arc::new(config));
    let (ours, theirs) = soon(async {
        tokio::join!(
            accept(ours.into(), Arc::new(pki.server(&TLS13))),
            connector.connect(localhost(), theirs)
        )
    })
    .await;
    assert!(
        matches!(ours, Err(HandshakeError::Tls(Error::InvalidCertificate(_)))),
        "{ours:?}"
    );
    let (_, seen) = read_to_end(&mut theirs.unwrap()).await;
    let alert = seen.unwrap_err().to_string();
    assert!(alert.contains("alert"), "{alert}");
}
