//! A TLS stream read and written directly, without a relay.
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use std::io::ErrorKind;

use rig::{CASES, handshake, read_exactly, read_to_end, soon};
use tokio::io::{AsyncWriteExt, split};

#[tokio::test]
async fn full_duplex_and_a_clean_end() {
    for (role, version) in CASES {
        let (ours, theirs) = handshake(role, version).await;
        let (mut from_us, mut to_us) = split(theirs);
        let (mut from_them, mut to_them) = split(ours);
        let sent = vec![3; 2_000_001];
        let (_, _, theirs, ours) = soon(async {
            tokio::join!(
                async {
                    to_them.write_all(&sent).await.unwrap();
                    to_them.shutdown().await.unwrap();
                },
                async {
                    to_us.write_all(&sent).await.unwrap();
                    to_us.shutdown().await.unwrap();
                },
                read_to_end(&mut from_us),
                read_to_end(&mut from_them),
            )
        })
        .await;
        for (received, end) in [ours, theirs] {
            assert_eq!(end.unwrap(), sent.len(), "{role:?} {version:?}");
            assert!(received == sent);
        }
        assert_eq!(
            to_them.write_all(b"late").await.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    for (role, version) in CASES {
        let (mut ours, mut theirs) = handshake(role, version).await;
        theirs.write_all(b"part").await.unwrap();
        theirs.flush().await.unwrap();
        theirs.get_mut().0.shutdown().await.unwrap();
        assert_eq!(read_exactly(&mut ours, 4).await, b"part");
        let (_, end) = read_to_end(&mut ours).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
