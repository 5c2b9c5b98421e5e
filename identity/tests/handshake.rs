//! Handshakes between our own server and client configs, in memory.
use identity::{testing::TestCa, *};
use rustls::{ClientConnection, ServerConnection};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn peers_of_one_trust_domain_identify_each_other() {
    let ca = TestCa::new("example.org");
    let set = || TrustBundleSet::new([ca.bundle()]);
    let server = ServerTls::new(
        IdentitySource::with(ca.svid("/server", HOUR), set()),
        ServerOptions::default(),
    );
    let client = ClientTls::new(
        IdentitySource::with(ca.intermediate().svid("/client", HOUR), set()),
        ClientOptions::default(),
    );
    let mut s = ServerConnection::new(server.config().unwrap()).unwrap();
    let mut c = ClientConnection::new(client.config().unwrap(), ClientTls::server_name()).unwrap();
    while s.is_handshaking() || c.is_handshaking() {
        let mut buf = vec![];
        while c.wants_write() {
            c.write_tls(&mut buf).unwrap();
        }
        let mut r = &buf[..];
        while !r.is_empty() {
            s.read_tls(&mut r).unwrap();
            s.process_new_packets().unwrap();
        }
        let mut buf = vec![];
        while s.wants_write() {
            s.write_tls(&mut buf).unwrap();
        }
        let mut r = &buf[..];
        while !r.is_empty() {
            c.read_tls(&mut r).unwrap();
            c.process_new_packets().unwrap();
        }
    }
    let now = SystemTime::now();
    assert_eq!(
        server
            .identify(s.peer_certificates(), now)
            .unwrap()
            .id
            .as_str(),
        "spiffe://example.org/client"
    );
    assert_eq!(
        client
            .identify(c.peer_certificates(), now)
            .unwrap()
            .id
            .as_str(),
        "spiffe://example.org/server"
    );
    assert!(Arc::ptr_eq(
        &server.config().unwrap(),
        &server.config().unwrap()
    ));
}
