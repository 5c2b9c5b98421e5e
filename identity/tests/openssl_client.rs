//! `openssl s_client` connects over a real socket to a server with our config.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/openssl.rs"]
mod openssl;

use std::{
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use identity::{
    IdentitySource, PeerIdentity, ServerOptions, ServerTls, TrustBundleSet, VerifyError,
    testing::TestCa,
};
use openssl::{Files, arg, openssl, text};
use rustls::{HandshakeKind, ServerConnection};

const HOUR: Duration = Duration::from_secs(3600);

/// What the server saw of one connection.
#[derive(Debug)]
enum Seen {
    Peer {
        identity: Result<PeerIdentity, VerifyError>,
        resumed: bool,
    },
    HandshakeFailed(String),
}

/// Accepts one connection after another, says hello to each peer it can identify, and
/// reports what it saw. Ends with the test's process.
fn serve(tls: Arc<ServerTls>) -> (SocketAddr, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (report, seen) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut connection = ServerConnection::new(tls.config().unwrap()).unwrap();
            let outcome = handshake(&tls, &mut connection, &mut socket);
            if report.send(outcome).is_err() {
                return;
            }
        }
    });
    (address, seen)
}

fn handshake(
    tls: &ServerTls,
    connection: &mut ServerConnection,
    socket: &mut std::net::TcpStream,
) -> Seen {
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(socket) {
            return Seen::HandshakeFailed(error.to_string());
        }
    }
    let identity = tls.identify(connection.peer_certificates(), SystemTime::now());
    if identity.is_ok() {
        connection.writer().write_all(b"hello\n").unwrap();
    }
    connection.send_close_notify();
    while connection.wants_write() {
        match connection.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Seen::Peer {
        identity,
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

struct World {
    ca: TestCa,
    source: Arc<IdentitySource>,
    address: SocketAddr,
    seen: mpsc::Receiver<Seen>,
    files: Files,
}

impl World {
    fn new(options: ServerOptions) -> Self {
        let ca = TestCa::new("example.org");
        let server = ca.intermediate().svid("/server", HOUR);
        let source = IdentitySource::with(server, TrustBundleSet::new([ca.bundle()]));
        let (address, seen) = serve(ServerTls::new(source.clone(), options));
        let client = ca.intermediate().svid("/client", HOUR);
        let files = Files::new(&client, &ca.bundle());
        Self {
            ca,
            source,
            address,
            seen,
            files,
        }
    }

    /// `s_client` that verifies the server; its output and what the server saw.
    fn s_client(&self, more: &[&str]) -> (String, Seen) {
        let address = self.address.to_string();
        let mut arguments = vec![
            "s_client",
            "-connect",
            &address,
            "-CAfile",
            arg(&self.files.bundle),
            "-verify_return_error",
            "-ign_eof",
        ];
        arguments.extend(more);
        let output = text(&openssl(arguments));
        let seen = self.seen.recv_timeout(Duration::from_secs(20)).unwrap();
        (output, seen)
    }

    fn with_certificate(&self, more: &[&str]) -> (String, Seen) {
        let mut arguments = vec![
            "-cert",
            arg(&self.files.chain),
            "-cert_chain",
            arg(&self.files.chain),
            "-key",
            arg(&self.files.key),
        ];
        arguments.extend(more);
        self.s_client(&arguments)
    }
}

#[test]
fn s_client_with_a_certificate_is_identified() {
    let world = World::new(ServerOptions::default());
    let (output, seen) = world.with_certificate(&[]);
    assert!(output.contains("Verify return code: 0 (ok)"), "{output}");
    assert!(output.contains("TLSv1.3"), "{output}");
    assert!(output.contains("hello"), "{output}");
    assert!(
        matches!(&seen, Seen::Peer { identity: Ok(peer), resumed: false } if peer.id.as_str() == "spiffe://example.org/client"),
        "{seen:?}"
    );
}

#[test]
fn s_client_speaks_tls12_where_it_is_allowed() {
    let world = World::new(ServerOptions {
        tls12: true,
        ..ServerOptions::default()
    });
    let (output, seen) = world.with_certificate(&["-tls1_2"]);
    assert!(
        output.contains("TLSv1.2") && output.contains("hello"),
        "{output}"
    );
    assert!(matches!(
        seen,
        Seen::Peer {
            identity: Ok(_),
            ..
        }
    ));

    let world = World::new(ServerOptions::default());
    let (output, seen) = world.with_certificate(&["-tls1_2"]);
    assert!(!output.contains("hello"), "{output}");
    assert!(matches!(seen, Seen::HandshakeFailed(_)), "{seen:?}");
}

#[test]
fn s_client_without_a_certificate_is_refused() {
    let world = World::new(ServerOptions::default());
    let (output, seen) = world.s_client(&[]);
    assert!(!output.contains("hello"), "{output}");
    assert!(output.contains("certificate required"), "{output}");
    assert!(
        matches!(&seen, Seen::HandshakeFailed(why) if why.contains("no certificates")),
        "{seen:?}"
    );
}

#[test]
fn s_client_of_a_strange_ca_is_refused() {
    let world = World::new(ServerOptions::default());
    let stranger = TestCa::new("example.org").svid("/client", HOUR);
    let files = Files::new(&stranger, &world.ca.bundle());
    let (output, seen) = world.s_client(&["-cert", arg(&files.chain), "-key", arg(&files.key)]);
    assert!(!output.contains("hello"), "{output}");
    assert!(
        matches!(&seen, Seen::HandshakeFailed(why) if why.contains("no authority in the trust bundle of example.org issued")),
        "{seen:?}"
    );
}

fn session(world: &World) -> PathBuf {
    world.files.path("session")
}

#[test]
fn s_client_resumes_and_is_identified_again() {
    let world = World::new(ServerOptions::default());
    let file = session(&world);
    let (output, seen) = world.with_certificate(&["-sess_out", arg(&file)]);
    assert!(
        matches!(seen, Seen::Peer { resumed: false, .. }),
        "{output}"
    );
    let (output, seen) = world.with_certificate(&["-sess_in", arg(&file)]);
    assert!(output.contains("Reused, TLSv1.3"), "{output}");
    assert!(output.contains("hello"), "{output}");
    assert!(
        matches!(&seen, Seen::Peer { identity: Ok(peer), resumed: true } if peer.id.path() == "/client"),
        "{seen:?}"
    );
}

#[test]
fn tls12_sessions_obey_the_same_rules() {
    let world = World::new(ServerOptions {
        tls12: true,
        ..ServerOptions::default()
    });
    let file = session(&world);
    let (output, _) = world.with_certificate(&["-tls1_2", "-sess_out", arg(&file)]);
    assert!(output.contains("hello"), "{output}");
    let (output, seen) = world.with_certificate(&["-tls1_2", "-sess_in", arg(&file)]);
    assert!(output.contains("Reused, TLSv1.2"), "{output}");
    assert!(
        matches!(&seen, Seen::Peer { identity: Ok(peer), resumed: true } if peer.id.path() == "/client"),
        "{seen:?}"
    );
    let other = TestCa::new("example.org");
    world
        .source
        .set_bundles(TrustBundleSet::new([other.bundle()]));
    let (output, seen) = world.with_certificate(&["-tls1_2", "-sess_in", arg(&file)]);
    assert!(!output.contains("hello"), "{output}");
    assert!(matches!(seen, Seen::HandshakeFailed(_)), "{seen:?}");
}

#[test]
fn s_client_gets_no_session_when_resumption_is_off() {
    let world = World::new(ServerOptions {
        resumption: false,
        ..ServerOptions::default()
    });
    let file = session(&world);
    let (output, _) = world.with_certificate(&["-sess_out", arg(&file)]);
    assert!(output.contains("hello"), "{output}");
    assert!(!output.contains("New Session Ticket arrived"), "{output}");
    assert!(!file.exists());
}

#[test]
fn a_session_from_before_the_anchor_left_the_bundle_is_worthless() {
    let world = World::new(ServerOptions::default());
    let file = session(&world);
    let (output, _) = world.with_certificate(&["-sess_out", arg(&file)]);
    assert!(output.contains("hello"), "{output}");

    let other = TestCa::new("example.org");
    world
        .source
        .set_bundles(TrustBundleSet::new([other.bundle()]));
    let (output, seen) = world.with_certificate(&["-sess_in", arg(&file)]);
    assert!(
        !output.contains("Reused") && !output.contains("hello"),
        "{output}"
    );
    assert!(matches!(seen, Seen::HandshakeFailed(_)), "{seen:?}");
}
