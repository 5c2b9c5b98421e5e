//! What the client promises, against servers that do not: every answer is bounded,
//! no redirect is followed, and only whom the roots and the name vouch for is asked.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_client::{Client, Error};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

/// Reads one request, tells it, answers with these bytes, and closes or stays.
async fn answer<S>(mut stream: S, bytes: Vec<u8>, stay: bool, told: UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                break;
            }
        }
    }
    told.send(String::from_utf8(request).unwrap()).unwrap();
    let _ = stream.write_all(&bytes).await;
    if stay {
        std::future::pending::<()>().await;
    }
}

/// A server in the clear: its address, and the requests that it got.
async fn server(bytes: impl Into<Vec<u8>>, stay: bool) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, requests) = unbounded_channel();
    let bytes = bytes.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, bytes.clone(), stay, told.clone()));
        }
    });
    (format!("http://{address}"), requests)
}

#[tokio::test]
async fn any_method_and_body_and_any_status_pass() {
    let (uri, mut requests) = server(
        "HTTP/1.1 201 Created\r\ncontent-length: 4\r\nx-id: 7\r\n\r\ndone",
        true,
    )
    .await;
    let request = Request::post(format!("{uri}/sessions?a=b"))
        .header("x-amz-date", "20261122")
        .body(Bytes::from_static(b"{\"x\":1}"))
        .unwrap();
    let response = Client::plain().send(request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-id"], "7");
    assert_eq!(response.body(), "done");
    let request = requests.recv().await.unwrap();
    let host = uri.strip_prefix("http://").unwrap();
    assert!(
        request.starts_with("POST /sessions?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    for line in [
        &*format!("host: {host}\r\n"),
        "x-amz-date: 20261122\r\n",
        "content-length: 7\r\n",
    ] {
        assert!(request.contains(line), "{line} in {request}");
    }
    assert!(request.ends_with("\r\n\r\n{\"x\":1}"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let (elsewhere, mut asked) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let (uri, _requests) = server(
        format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}/secret\r\ncontent-length: 0\r\n\r\n"),
        false,
    )
    .await;
    let response = Client::plain().get(&uri, Some("token")).await.unwrap();
    assert_eq!(response.status(), 302);
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_is_bounded_however_it_is_framed() {
    let long = "x".repeat(11);
    for body in [
        format!("content-length: 11\r\n\r\n{long}"),
        format!("\r\n{long}"),
        "transfer-encoding: chunked\r\n\r\n6\r\nxxxxxx\r\n5\r\nxxxxx\r\n0\r\n\r\n".to_owned(),
        // More than can ever come.
        "content-length: 99999999999\r\n\r\n12345678901".to_owned(),
    ] {
        let (uri, _requests) = server(format!("HTTP/1.1 200 OK\r\n{body}"), false).await;
        let error = Client::plain()
            .max_body(10)
            .get(&uri, None)
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { limit: 10, .. }),
            "{body}: {error}"
        );
        if !body.contains("9999") {
            let response = Client::plain().max_body(11).get(&uri, None).await.unwrap();
            assert_eq!(response.body().len(), 11);
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let (uri, _requests) = server(head, false).await;
    let error = Client::plain().get(&uri, None).await.unwrap_err();
    assert!(matches!(error, Error::Http { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_none() {
    for bytes in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let (uri, _requests) = server(bytes, false).await;
        let error = Client::plain().get(&uri, None).await.unwrap_err();
        assert!(matches!(error, Error::Http { .. }), "{bytes}: {error}");
    }
}

#[tokio::test]
async fn who_never_answers_or_never_ends_is_waited_for_no_longer_than_the_limit() {
    let limit = Duration::from_millis(50);
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"] {
        let (uri, _requests) = server(bytes, true).await;
        let uri = uri.replace("http://", "http://user:secret@") + "/p?secret=1";
        let client = Client::plain().time_limit(limit);
        let error = client.get(&uri, None).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    // A listener whose queue nobody serves.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let client = Client::unix(&path).time_limit(limit);
    let error = client.get("http://docker/", None).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_unix_socket_is_asked_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (told, mut requests) = unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
        answer(stream, bytes, false, told).await;
    });
    let client = Client::unix(&path);
    let response = client.get("http://docker/_ping", None).await.unwrap();
    assert_eq!(response.body(), "ok");
    assert!(requests.recv().await.unwrap().contains("host: docker\r\n"));
    let error = Client::unix(folder.path().join("none"))
        .get("http://docker/", None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(error.to_string().contains("/none"), "{error}");
}

#[tokio::test]
async fn a_token_is_sent_and_never_shown() {
    let (uri, mut requests) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let client = Client::plain();
    client.get(&uri, Some("s3cret\n")).await.unwrap();
    let request = requests.recv().await.unwrap();
    assert!(
        request.contains("authorization: Bearer s3cret\r\n"),
        "{request}"
    );
    assert!(!format!("{:?}", http_client::bearer("s3cret").unwrap()).contains("s3cret"));
    let error = client.get(&uri, Some("s3\ncret")).await.unwrap_err();
    assert!(matches!(error, Error::Request { .. }));
    assert!(!error.to_string().contains("cret"), "{error}");
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn client(&self) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Client::with_roots(roots, identity::tls::provider()).unwrap()
    }

    /// A TLS server with a certificate for this name; it answers `ok`.
    async fn server(&self, name: &str) -> u16 {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(identity::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, _requests) = unbounded_channel();
        tokio::spawn(async move {
            let _requests = _requests;
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), told.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
                        answer(stream, bytes, true, told).await;
                    }
                });
            }
        });
        port
    }
}

#[tokio::test]
async fn only_a_server_of_the_roots_and_of_the_name_is_asked() {
    let (ours, other) = (Authority::new(), Authority::new());
    let right = ours.server("localhost").await;
    let by_address = ours.server("127.0.0.1").await;
    let foreign = other.server("localhost").await;
    let client = ours.client();
    for uri in [
        format!("https://localhost:{right}/"),
        format!("https://127.0.0.1:{by_address}/"),
    ] {
        let response = client.get(&uri, None).await.unwrap();
        assert_eq!(response.body(), "ok");
    }
    for uri in [
        format!("https://127.0.0.1:{right}/"),
        format!("https://localhost:{by_address}/"),
        format!("https://localhost:{foreign}/"),
    ] {
        let error = client.get(&uri, Some("token")).await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn another_scheme_is_refused_before_anything_is_sent() {
    let (uri, mut requests) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let client = Authority::new().client();
    for uri in [
        &*uri,
        "ftp://localhost/",
        "/path",
        "localhost:1",
        "https://",
        "",
    ] {
        let error = client.get(uri, Some("token")).await.unwrap_err();
        assert!(matches!(error, Error::Request { .. }), "{uri}: {error}");
    }
    let error = Client::plain()
        .get("https://localhost/", None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Request { .. }), "{error}");
    assert!(requests.try_recv().is_err());
}
