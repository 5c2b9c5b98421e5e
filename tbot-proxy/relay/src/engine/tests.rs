//! The engine over byte slices: every way to cut the stream into pieces gives the same.
use rustls::version::{TLS12, TLS13};

use super::*;

use crate::support::{Pki, localhost};

/// One side with what it holds between calls, as a connection would.
struct Side {
    engine: Box<Engine>,
    unread: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl Side {
    fn new(engine: Box<Engine>) -> Self {
        Self {
            engine,
            unread: Vec::new(),
            plain: Vec::new(),
            out: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.unread.extend_from_slice(bytes);
        let received = self
            .engine
            .receive(&mut self.unread, &mut self.plain, &mut self.out);
        self.unread.drain(..received.consumed);
        received.result
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let count = self.engine.seal(plain, &mut self.unread, &mut out).unwrap();
        out.truncate(count);
        out
    }

    fn close_notify(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let count = self
            .engine
            .close_notify(&mut self.unread, &mut out)
            .unwrap();
        out.truncate(count);
        out
    }
}

fn pair(pki: &Pki, version: &'static rustls::SupportedProtocolVersion) -> (Side, Side) {
    let server = Engine::server(Arc::new(pki.server(version))).unwrap();
    let client = Engine::client(Arc::new(pki.client()), localhost()).unwrap();
    (Side::new(client), Side::new(server))
}

fn connected(pki: &Pki, version: &'static rustls::SupportedProtocolVersion) -> (Side, Side) {
    let (mut client, mut server) = pair(pki, version);
    client.receive(&[]).unwrap();
    while !client.out.is_empty() || !server.out.is_empty() {
        let bytes = std::mem::take(&mut client.out);
        server.receive(&bytes).unwrap();
        let bytes = std::mem::take(&mut server.out);
        client.receive(&bytes).unwrap();
    }
    assert!(!client.engine.facts().is_handshaking() && !server.engine.facts().is_handshaking());
    assert!(client.unread.is_empty() && server.unread.is_empty());
    (client, server)
}

#[test]
fn handshake_byte_by_byte() {
    let pki = Pki::new();
    for version in [&TLS13, &TLS12] {
        let (mut client, mut server) = pair(&pki, version);
        client.receive(&[]).unwrap();
        while !client.out.is_empty() || !server.out.is_empty() {
            for byte in std::mem::take(&mut client.out) {
                server.receive(&[byte]).unwrap();
            }
            for byte in std::mem::take(&mut server.out) {
                client.receive(&[byte]).unwrap();
            }
        }
        assert!(!client.engine.facts().is_handshaking() && !server.engine.facts().is_handshaking());
    }
}

/// Three records, a key update and a close_notify, cut in two at every byte.
#[test]
fn split_at_every_byte() {
    let pki = Pki::new();
    for version in [&TLS13, &TLS12] {
        let mut cut = 0;
        loop {
            let (mut client, mut server) = connected(&pki, version);
            let mut stream = client.seal(b"first");
            if version.version == TLS13.version {
                client.engine.update_keys();
            }
            stream.extend(client.seal(b"second"));
            stream.extend(client.seal(&[3; 300]));
            stream.extend(client.close_notify());
            server.receive(&stream[..cut]).unwrap();
            // The other direction works whatever of a record is still to come.
            let answer = server.seal(b"answer");
            client.receive(&answer).unwrap();
            assert_eq!(client.plain, b"answer");
            assert_eq!(server.engine.peer_closed(), cut == stream.len());
            server.receive(&stream[cut..]).unwrap();
            assert!(server.engine.peer_closed());
            assert_eq!(
                server.plain,
                [b"firstsecond".as_slice(), &[3; 300]].concat()
            );
            if cut == stream.len() {
                break;
            }
            cut += 1;
        }
    }
}

#[test]
fn ciphertext_beside_the_last_flight_is_not_lost() {
    let pki = Pki::new();
    let (mut client, mut server) = pair(&pki, &TLS13);
    client.receive(&[]).unwrap();
    let bytes = std::mem::take(&mut client.out);
    server.receive(&bytes).unwrap();
    let bytes = std::mem::take(&mut server.out);
    client.receive(&bytes).unwrap();
    let mut flight = std::mem::take(&mut client.out);
    flight.extend(client.seal(b"request"));
    flight.extend(client.close_notify());
    server.receive(&flight).unwrap();
    assert_eq!(server.plain, b"request");
    assert!(server.engine.peer_closed());
}

#[test]
fn nothing_is_sealed_after_close_notify_or_a_fault() {
    let pki = Pki::new();
    let (mut client, mut server) = connected(&pki, &TLS13);
    assert!(!client.close_notify().is_empty());
    assert!(client.seal(b"late").is_empty());
    assert!(client.close_notify().is_empty());
    let forged = [[23, 3, 3, 0, 40].as_slice(), &[0; 40]].concat();
    assert_eq!(server.receive(&forged), Err(Error::DecryptError));
    assert!(!server.out.is_empty(), "an alert");
    assert!(server.seal(b"late").is_empty());
}

#[test]
fn empty_records_pass_and_a_flood_of_them_does_not() {
    use rustls::{
        ContentType, ProtocolVersion,
        crypto::cipher::{OutboundChunks, OutboundPlainMessage},
    };
    let pki = Pki::new();
    let (client, mut server) = connected(&pki, &TLS13);
    let suite = client.engine.facts().negotiated_cipher_suite().unwrap();
    let Connection::Client(connection) = client.engine.connection else {
        panic!()
    };
    let (sequence, secrets) = connection.dangerous_into_kernel_connection().unwrap().0.tx;
    let mut encrypter = crate::refusal::encrypter(suite, secrets).unwrap();
    let mut seal = |payload: &[u8], sequence| {
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(payload),
        };
        encrypter.encrypt(message, sequence).unwrap().encode()
    };
    server.receive(&seal(b"", sequence)).unwrap();
    server.receive(&seal(b"data", sequence + 1)).unwrap();
    assert_eq!(server.plain, b"data");
    let flood = (2..1_000).find_map(|at| server.receive(&seal(b"", sequence + at)).err());
    assert!(matches!(flood, Some(Error::PeerMisbehaved(_))), "{flood:?}");
}

#[test]
fn tickets_are_received_while_relaying_and_resume() {
    let pki = Pki::new();
    let config = Arc::new(pki.client());
    let server_config = Arc::new(pki.server(&TLS13));
    for resumed in [false, true] {
        let mut client = Side::new(Engine::client(config.clone(), localhost()).unwrap());
        let mut server = Side::new(Engine::server(server_config.clone()).unwrap());
        client.receive(&[]).unwrap();
        while !client.out.is_empty() || !server.out.is_empty() {
            let bytes = std::mem::take(&mut client.out);
            server.receive(&bytes).unwrap();
            let bytes = std::mem::take(&mut server.out);
            client.receive(&bytes).unwrap();
        }
        let kind = server.engine.facts().handshake_kind().unwrap();
        assert_eq!(kind == rustls::HandshakeKind::Resumed, resumed);
        assert!(
            server.engine.facts().peer_certificates().is_some(),
            "also when resumed"
        );
    }
}
