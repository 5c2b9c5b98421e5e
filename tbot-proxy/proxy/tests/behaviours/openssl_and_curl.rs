//! Peers that are not ours: OpenSSL's `s_client` and curl reach an inbound service with an SVID from files.

use std::{path::Path, process::Stdio};

use identity::testing::TestCa;
use proxy::CloseReason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

use crate::support::{CLIENT, Echo, HOUR, Proxy, within};

fn files(ca: &TestCa, path: &str, folder: &Path) {
    let svid = ca.svid(path, HOUR);
    std::fs::write(folder.join("svid.pem"), svid.chain_pem()).unwrap();
    std::fs::write(folder.join("key.pem"), svid.key_pem().as_bytes()).unwrap();
    std::fs::write(folder.join("bundle.pem"), ca.bundle().to_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_s_client_is_served_or_told_access_denied() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    for (path, reason) in [
        ("/client", CloseReason::Complete),
        ("/stranger", CloseReason::PeerNotAllowed),
    ] {
        let dir = tempfile::tempdir().unwrap();
        files(&ca, path, dir.path());
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &proxy.addr().to_string(),
                "-tls1_3",
                "-quiet",
                "-no_ign_eof",
            ])
            .args(["-verify_return_error", "-verify_quiet"])
            .args([
                "-cert",
                "svid.pem",
                "-key",
                "key.pem",
                "-CAfile",
                "bundle.pem",
            ])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let _ = stdin.write_all(b"to openssl and back").await;
        if reason == CloseReason::Complete {
            let mut back = [0; 19];
            within(stdout.read_exact(&mut back)).await.unwrap();
            assert_eq!(&back, b"to openssl and back");
        }
        // At the end of its input it leaves by itself; one that is refused must do so before.
        let held = (reason != CloseReason::Complete).then_some(stdin);
        let output = within(child.wait_with_output()).await.unwrap();
        drop(held);
        let said = String::from_utf8_lossy(&output.stderr);
        if reason != CloseReason::Complete {
            assert!(said.contains("access denied"), "{said}");
        }
        let record = proxy.records.next().await;
        assert_eq!(record.reason, reason, "{record:?}: {said}");
        assert_eq!(record.tls_version, Some("TLSv1_3"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reaches_the_application() {
    let ca = TestCa::new("example.org");
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::inbound(&ca, &app.local_addr().unwrap().into(), &[CLIENT]);
    tokio::spawn(async move {
        let (mut stream, _) = app.accept().await.unwrap();
        let mut request = [0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        assert!(request[..count].starts_with(b"GET /hello "));
        let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nserved\n";
        stream.write_all(answer).await.unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    files(&ca, "/client", dir.path());
    // An SVID names no host, and curl cannot verify a chain without one: here it is the client that is judged.
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "50"])
        .args(["--cert", "svid.pem", "--key", "key.pem"])
        .arg(format!("https://{}/hello", proxy.addr()))
        .current_dir(dir.path())
        .output();
    let output = within(output).await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, b"served\n");
    let record = proxy.records.next().await;
    assert_eq!(record.reason, CloseReason::Complete, "{record:?}");
    assert_eq!(record.peer_id.unwrap().as_str(), CLIENT);
}
