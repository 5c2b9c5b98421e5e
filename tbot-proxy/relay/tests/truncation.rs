//! A TLS stream that ends without close_notify is never shown to the application as complete.
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use std::io::ErrorKind;

use relay::Deadlines;
use relay::End;
use rig::{CASES, Rig, read_to_end};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn what_was_received_is_delivered_then_a_reset() {
    for (role, version) in CASES {
        let mut rig = Rig::new(role, version, Deadlines::default()).await;
        rig.peer.write_all(&[5; 100_000]).await.unwrap();
        rig.peer.flush().await.unwrap();
        rig.peer.get_mut().0.shutdown().await.unwrap();
        let (received, end) = read_to_end(&mut rig.app).await;
        assert_eq!(received.len(), 100_000);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(matches!(rig.end().await, End::TlsTruncated));
    }
}

#[tokio::test]
async fn an_end_within_a_record() {
    let mut rig = Rig::server().await;
    // The header of a record of 1,000 bytes, and ten of them.
    rig.peer
        .get_mut()
        .0
        .write_all(&[23, 3, 3, 3, 232, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        .await
        .unwrap();
    rig.peer.get_mut().0.shutdown().await.unwrap();
    let (received, end) = read_to_end(&mut rig.app).await;
    assert!(received.is_empty());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(matches!(rig.end().await, End::TlsTruncated));
}

#[tokio::test]
async fn a_forged_record_ends_with_an_alert_and_a_reset() {
    let mut rig = Rig::server().await;
    rig.peer.write_all(b"good").await.unwrap();
    rig.peer.flush().await.unwrap();
    let mut forged = vec![23, 3, 3, 0, 40];
    forged.extend([0; 40]);
    rig.peer.get_mut().0.write_all(&forged).await.unwrap();
    let (received, end) = read_to_end(&mut rig.app).await;
    assert_eq!(received, b"good");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (_, seen) = read_to_end(&mut rig.peer).await;
    let alert = seen.unwrap_err().to_string();
    assert!(alert.contains("BadRecordMac"), "{alert}");
    assert!(matches!(
        rig.end().await,
        End::Tls(rustls::Error::DecryptError)
    ));
}
