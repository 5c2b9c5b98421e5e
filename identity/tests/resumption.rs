//! Resumed handshakes: fast, and never an identity that would not pass now (DESIGN D3).
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/world.rs"]
mod world;

use std::{sync::Arc, time::SystemTime};

use identity::{ClientOptions, ServerOptions, TrustBundleSet, VerifyError, testing::TestCa};
use world::{HOUR, World};

#[test]
fn the_second_handshake_is_resumed_and_identified() {
    let world = World::new();
    assert!(!world.connect().unwrap().is_resumed());
    let connection = world.connect().unwrap();
    assert!(connection.is_resumed());
    assert_eq!(world.client_of(&connection).unwrap().id.path(), "/client");
    assert_eq!(world.server_of(&connection).unwrap().id.path(), "/server");
    assert_eq!(world.server_source.verifier().stats().misses, 1);
}

#[test]
fn one_ticket_per_handshake() {
    let connection = World::new().connect().unwrap();
    assert_eq!(connection.client.tls13_tickets_received(), 1);
}

#[test]
fn no_tickets_and_no_resumption_when_off() {
    let off = World::with(
        ServerOptions {
            resumption: false,
            ..ServerOptions::default()
        },
        ClientOptions::default(),
    );
    assert_eq!(off.connect().unwrap().client.tls13_tickets_received(), 0);
    assert!(!off.connect().unwrap().is_resumed());
    let client_off = World::with(
        ServerOptions::default(),
        ClientOptions {
            resumption: false,
            ..ClientOptions::default()
        },
    );
    client_off.connect().unwrap();
    assert!(!client_off.connect().unwrap().is_resumed());
}

/// The hole of other proxies: the anchor goes between the full and the resumed handshake.
#[test]
fn a_resumed_handshake_after_the_anchor_is_gone_is_refused() {
    let world = World::new();
    world.connect().unwrap();
    // Configs are taken before the change, so that the ticket still opens.
    let mut connection = world.begin();
    world
        .server_source
        .set_bundles(TrustBundleSet::new([TestCa::new("example.org").bundle()]));
    pipe::run(&mut connection.client, &mut connection.server).unwrap();
    assert!(connection.is_resumed(), "rustls does not ask the verifier");
    assert!(matches!(
        world.client_of(&connection),
        Err(VerifyError::UnknownAuthority { .. })
    ));
    // With the config of the new generation the ticket does not even open, and the full
    // handshake is refused.
    assert!(world.connect().is_err());
}

#[test]
fn a_resumed_handshake_of_a_revoked_peer_is_refused() {
    let world = World::new();
    world.connect().unwrap();
    let mut connection = world.begin();
    let svid = world.server_source.current().svid.clone().unwrap();
    let list = world.ca.revoke([svid.serial()]);
    let bundle = world.ca.bundle().with_crls(vec![list]).unwrap();
    world
        .client_source
        .set_bundles(TrustBundleSet::new([bundle]));
    pipe::run(&mut connection.client, &mut connection.server).unwrap();
    assert!(connection.is_resumed());
    assert!(matches!(
        world.server_of(&connection),
        Err(VerifyError::Revoked { .. })
    ));
}

#[test]
fn a_resumed_handshake_after_expiry_is_refused() {
    let world = World::new();
    world.connect().unwrap();
    let connection = world.connect().unwrap();
    assert!(connection.is_resumed());
    let chain = connection.server.peer_certificates();
    let late = SystemTime::now() + 2 * HOUR;
    assert!(matches!(
        world.server.identify(chain, late),
        Err(VerifyError::Expired { .. })
    ));
}

#[test]
fn forgotten_sessions_do_not_resume() {
    let world = World::new();
    world.connect().unwrap();
    assert!(world.connect().unwrap().is_resumed());
    world.server.forget_sessions();
    assert!(!world.connect().unwrap().is_resumed());
    assert!(world.connect().unwrap().is_resumed());
    world.client.forget_sessions();
    assert!(!world.connect().unwrap().is_resumed());
}

#[test]
fn a_new_generation_does_not_resume() {
    let world = World::new();
    for rotate in [
        (|world: &World| {
            world
                .server_source
                .set_svid(Arc::new(world.ca.svid("/server", HOUR)))
        }) as fn(&World),
        |world| {
            world
                .client_source
                .set_svid(Arc::new(world.ca.svid("/client", HOUR)))
        },
        |world| {
            let bundle = world.ca.bundle().with_sequence(9);
            world
                .server_source
                .set_bundles(TrustBundleSet::new([bundle]));
        },
    ] {
        world.connect().unwrap();
        assert!(world.connect().unwrap().is_resumed());
        rotate(&world);
        assert!(!world.connect().unwrap().is_resumed());
    }
}
