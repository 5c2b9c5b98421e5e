//! Our client config connects over a real socket to `openssl s_server`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/openssl.rs"]
mod openssl;

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use identity::{
    ClientOptions, ClientTls, IdentitySource, TrustBundleSet, VerifyError, testing::TestCa,
};
use openssl::{Files, arg};
use rustls::{ClientConnection, HandshakeKind, Stream};

const HOUR: Duration = Duration::from_secs(3600);

/// Killed when the test ends, however it ends.
struct SServer {
    child: Child,
    address: String,
}

impl SServer {
    /// An `s_server` that demands a client certificate and answers HTTP requests.
    fn start(files: &Files) -> Self {
        let mut child = Command::new("/usr/bin/openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-Verify", "4"])
            .args(["-verify_return_error", "-CAfile", arg(&files.bundle)])
            .args(["-cert", arg(&files.chain), "-cert_chain", arg(&files.chain)])
            .args(["-key", arg(&files.key)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| Some(line.ok()?.strip_prefix("ACCEPT ")?.to_owned()))
            .expect("s_server says where it listens");
        // Keep reading, or it blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn s_server_is_identified_in_full_and_resumed_handshakes() {
    let ca = TestCa::new("example.org");
    let files = Files::new(&ca.intermediate().svid("/server", HOUR), &ca.bundle());
    let server = SServer::start(&files);
    let svid = ca.intermediate().svid("/client", HOUR);
    let source = IdentitySource::with(svid, TrustBundleSet::new([ca.bundle()]));
    let client = ClientTls::new(source.clone(), ClientOptions::default());
    let name = || ClientTls::server_name_for(&server.address);

    let request = |expected: HandshakeKind| {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let mut connection = ClientConnection::new(client.config().unwrap(), name()).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("HTTP/1.0 200"), "{answer}");
        assert_eq!(connection.handshake_kind(), Some(expected));
        client.identify(connection.peer_certificates(), SystemTime::now())
    };
    assert_eq!(request(HandshakeKind::Full).unwrap().id.path(), "/server");
    assert_eq!(
        request(HandshakeKind::Resumed).unwrap().id.path(),
        "/server"
    );

    // The resumed peer is judged anew: not before the change, then with it.
    let connection_before = {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let config = client.config().unwrap();
        let mut connection = ClientConnection::new(config, name()).unwrap();
        source.set_bundles(TrustBundleSet::new([TestCa::new("example.org").bundle()]));
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        connection
    };
    assert_eq!(
        connection_before.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    assert!(matches!(
        client.identify(connection_before.peer_certificates(), SystemTime::now()),
        Err(VerifyError::UnknownAuthority { .. })
    ));
}
