//! Full handshakes between our own configs, in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/world.rs"]
mod world;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{
    ClientOptions, ClientTls, IdentitySource, ServerOptions, ServerTls, TlsError, TrustBundleSet,
    VerifyError, testing::TestCa, tls::AnyServer,
};
use pipe::Failure;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use world::{HOUR, World};

#[test]
fn peers_of_one_trust_domain_identify_each_other() {
    let world = World::new();
    let connection = world.connect().unwrap();
    let peer = world.client_of(&connection).unwrap();
    assert_eq!(peer.id.as_str(), "spiffe://example.org/client");
    let svid = world.client_source.current().svid.clone().unwrap();
    assert_eq!(&peer.serial, svid.serial());
    assert_eq!(peer.not_after, svid.not_after());
    let peer = world.server_of(&connection).unwrap();
    assert_eq!(peer.id.as_str(), "spiffe://example.org/server");
}

#[test]
fn tls13_with_a_post_quantum_key_exchange_is_the_default() {
    let connection = World::new().connect().unwrap();
    let client = &connection.client;
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn tls12_is_spoken_only_by_option() {
    let tls12 = ServerOptions {
        tls12: true,
        ..ServerOptions::default()
    };
    for (options, speaks) in [(ServerOptions::default(), false), (tls12, true)] {
        let world = World::with(
            options,
            ClientOptions {
                tls12: true,
                ..ClientOptions::default()
            },
        );
        // Both offered: the newer is taken.
        let connection = world.connect().unwrap();
        assert_eq!(
            connection.server.protocol_version(),
            Some(ProtocolVersion::TLSv1_3)
        );
        // A client that has only 1.2.
        let only12 = {
            let source = &world.client_source;
            let verifier = AnyServer;
            let config = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
                .with_protocol_versions(&[&rustls::version::TLS12])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            let svid = source.current().svid.clone().unwrap();
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(svid.key_pkcs8_der().to_vec());
            config
                .with_client_auth_cert(svid.chain().to_vec(), key.into())
                .unwrap()
        };
        let mut connection = world.begin();
        connection.client =
            rustls::ClientConnection::new(Arc::new(only12), ClientTls::server_name()).unwrap();
        let result = pipe::run(&mut connection.client, &mut connection.server);
        assert_eq!(result.is_ok(), speaks);
        if speaks {
            assert_eq!(
                connection.server.protocol_version(),
                Some(ProtocolVersion::TLSv1_2)
            );
            assert_eq!(world.client_of(&connection).unwrap().id.path(), "/client");
        }
    }
}

#[test]
fn alpn_is_negotiated() {
    let alpn = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let world = World::with(
        ServerOptions {
            alpn: alpn(&["h2", "tbot"]),
            ..ServerOptions::default()
        },
        ClientOptions {
            alpn: alpn(&["tbot"]),
            ..ClientOptions::default()
        },
    );
    let connection = world.connect().unwrap();
    assert_eq!(connection.server.alpn_protocol(), Some(&b"tbot"[..]));
}

#[test]
fn no_name_is_sent() {
    let connection = World::new().connect().unwrap();
    assert_eq!(connection.server.server_name(), None);
}

#[test]
fn strangers_are_refused_on_both_sides_with_the_reason() {
    let world = World::new();
    let stranger = TestCa::new("example.org");
    let source = IdentitySource::with(
        stranger.svid("/client", HOUR),
        TrustBundleSet::new([world.ca.bundle()]),
    );
    let client = ClientTls::new(source.clone(), ClientOptions::default());
    let server = ServerTls::new(source, ServerOptions::default());

    let mut connection = world.begin();
    connection.client =
        rustls::ClientConnection::new(client.config().unwrap(), ClientTls::server_name()).unwrap();
    let Err(Failure::Server(error)) = pipe::run(&mut connection.client, &mut connection.server)
    else {
        panic!("the server must refuse");
    };
    let reason = VerifyError::of_handshake(&error).expect("our reason");
    assert!(matches!(reason, VerifyError::UnknownAuthority { id } if id.path() == "/client"));
    assert!(
        error
            .to_string()
            .contains("no authority in the trust bundle"),
        "{error}"
    );

    let mut connection = world.begin();
    connection.server = rustls::ServerConnection::new(server.config().unwrap()).unwrap();
    let Err(Failure::Client(error)) = pipe::run(&mut connection.client, &mut connection.server)
    else {
        panic!("the client must refuse");
    };
    assert!(VerifyError::of_handshake(&error).is_some());
}

#[test]
fn a_client_without_certificate_is_refused_unless_it_is_optional() {
    for optional in [false, true] {
        let world = World::with(
            ServerOptions {
                client_auth_optional: optional,
                ..ServerOptions::default()
            },
            ClientOptions::default(),
        );
        let anonymous = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        let mut connection = world.begin();
        connection.client =
            rustls::ClientConnection::new(Arc::new(anonymous), ClientTls::server_name()).unwrap();
        let result = pipe::run(&mut connection.client, &mut connection.server);
        assert_eq!(result.is_ok(), optional);
        assert_eq!(
            world.client_of(&connection),
            Err(VerifyError::NoCertificate)
        );
    }
}

/// The chain alone proves nothing: whoever copies it lacks the key.
#[test]
fn possession_of_the_key_is_checked_for_remembered_chains_too() {
    let world = World::new();
    world.connect().unwrap();
    let svid = world.client_source.current().svid.clone().unwrap();
    let thief_key = world.ca.svid("/thief", HOUR);
    let thief = rustls::sign::CertifiedKey::new(
        svid.chain().to_vec(),
        thief_key.certified_key().key.clone(),
    );
    let config = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(thief)));
    let hits = world.server_source.verifier().stats().hits;
    let mut connection = world.begin();
    connection.client =
        rustls::ClientConnection::new(Arc::new(config), ClientTls::server_name()).unwrap();
    let Err(Failure::Server(error)) = pipe::run(&mut connection.client, &mut connection.server)
    else {
        panic!("the server must refuse");
    };
    assert_eq!(
        error,
        rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature)
    );
    assert_eq!(
        world.server_source.verifier().stats().hits,
        hits + 1,
        "its chain was known"
    );
}

#[test]
fn a_peer_that_reconnects_costs_no_chain_verification() {
    let world = World::with(
        ServerOptions {
            resumption: false,
            ..ServerOptions::default()
        },
        ClientOptions::default(),
    );
    for _ in 0..5 {
        let connection = world.connect().unwrap();
        assert!(!connection.is_resumed());
        world.client_of(&connection).unwrap();
        world.server_of(&connection).unwrap();
    }
    for source in [&world.server_source, &world.client_source] {
        let stats = source.verifier().stats();
        assert_eq!((stats.hits, stats.misses), (9, 1));
    }
}

#[test]
fn one_config_per_generation() {
    let world = World::new();
    let (server, client) = (
        world.server.config().unwrap(),
        world.client.config().unwrap(),
    );
    assert!(Arc::ptr_eq(&server, &world.server.config().unwrap()));
    assert!(Arc::ptr_eq(&client, &world.client.config().unwrap()));

    world
        .server_source
        .set_bundles(TrustBundleSet::new([world.ca.bundle()]));
    assert!(
        Arc::ptr_eq(&server, &world.server.config().unwrap()),
        "equal content"
    );

    let renewed = Arc::new(world.ca.svid("/server", HOUR));
    world.server_source.set_svid(renewed);
    let second = world.server.config().unwrap();
    assert!(!Arc::ptr_eq(&server, &second));
    world.server.forget_sessions();
    assert!(!Arc::ptr_eq(&second, &world.server.config().unwrap()));
    world.client.forget_sessions();
    assert!(!Arc::ptr_eq(&client, &world.client.config().unwrap()));
}

#[test]
fn one_config_per_generation_for_many_threads() {
    let world = World::new();
    let configs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| world.server.config().unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        configs
            .windows(2)
            .all(|pair| Arc::ptr_eq(&pair[0], &pair[1]))
    );
}

#[test]
fn without_an_svid_there_is_no_config() {
    let source = IdentitySource::new();
    let server = ServerTls::new(source.clone(), ServerOptions::default());
    let client = ClientTls::new(source.clone(), ClientOptions::default());
    assert!(matches!(server.config(), Err(TlsError::NoSvid)));
    assert!(matches!(client.config(), Err(TlsError::NoSvid)));
    source.set_svid(Arc::new(TestCa::new("example.org").svid("/late", HOUR)));
    assert!(server.config().is_ok() && client.config().is_ok());
    source.clear_svid();
    assert!(matches!(server.config(), Err(TlsError::NoSvid)));
}

#[test]
fn an_expired_svid_is_never_presented() {
    let ca = TestCa::new("example.org");
    let lives_for = Duration::from_secs(2);
    let source = IdentitySource::with(
        ca.svid("/short", lives_for),
        TrustBundleSet::new([ca.bundle()]),
    );
    let server = ServerTls::new(source.clone(), ServerOptions::default());
    let client = ClientTls::new(source.clone(), ClientOptions::default());
    let not_after = source.current().svid.as_ref().unwrap().not_after();
    assert!(server.config().is_ok() && client.config().is_ok());
    // Nobody takes it away: the configs that were built are not handed out any more.
    while SystemTime::now() < not_after {
        std::thread::sleep(Duration::from_millis(20));
    }
    let is_expired = |error: TlsError| matches!(error, TlsError::SvidExpired { not_after: at, .. } if at == not_after);
    assert!(is_expired(server.config().unwrap_err()));
    assert!(is_expired(client.config().unwrap_err()));
    // Nor is a new one built.
    server.forget_sessions();
    assert!(is_expired(server.config().unwrap_err()));
    source.set_svid(Arc::new(ca.svid("/short", HOUR)));
    assert!(server.config().is_ok() && client.config().is_ok());
}

#[test]
fn identify_judges_by_now() {
    let world = World::new();
    let connection = world.connect().unwrap();
    let chain = connection.server.peer_certificates();
    let late = SystemTime::now() + 2 * HOUR;
    assert!(matches!(
        world.server.identify(chain, late),
        Err(VerifyError::Expired { .. })
    ));
    assert_eq!(
        world.server.identify(None, late),
        Err(VerifyError::NoCertificate)
    );
}
