//! What is no TLS ends its own connection and nothing else.

use identity::testing::TestCa;
use proxy::{CloseReason, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{CLIENT, Echo, Peer, Proxy, echoed, finish, plain, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_own_connection_only() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let peer = Peer::new(&ca, "/client");
    let mut honest = peer.admitted(&proxy.addr()).await;

    let record = [&[22, 3, 3, 0xff, 0xff][..], &[0xaa; 70_000]].concat();
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &[0; 4096],
        &[0xff; 4096],
        // A handshake message that claims 16 MiB, and a record beyond the limit.
        &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
        &record,
    ];
    for bytes in garbage {
        let mut stream = plain(&proxy.addr()).await;
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut heard = Vec::new();
        // An alert at most.
        let _ = within(stream.read_to_end(&mut heard)).await;
        assert!(heard.len() < 64, "{heard:?}");
        let record = proxy.records.next().await;
        assert!(
            matches!(
                record.reason,
                CloseReason::HandshakeFailed | CloseReason::ClientClosedEarly
            ),
            "{record:?}"
        );
        assert_eq!(record.reason.fault(), Fault::Peer);
        assert_eq!(record.peer_id, None);
        echoed(&mut honest, b"unmoved").await;
    }
    assert_eq!(app.accepted(), 1);

    // Garbage after a good handshake: the TLS layer is broken, the application gets none of it.
    let stream = peer.admitted(&proxy.addr()).await;
    let (mut tcp, _) = stream.into_inner();
    tcp.write_all(&[23, 3, 3, 0, 32]).await.unwrap();
    tcp.write_all(&[0xaa; 32]).await.unwrap();
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::TlsError, "{record:?}");
    assert_eq!(record.bytes_in, 5);
    echoed(&mut honest, b"unmoved").await;
    finish(honest).await;
}
