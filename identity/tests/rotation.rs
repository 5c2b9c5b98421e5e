//! Identity and trust change under live connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pipe.rs"]
mod pipe;
#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use identity::{TrustBundle, TrustBundleSet, VerifyError, testing::TestCa};
use world::{HOUR, World};

#[test]
fn a_live_connection_survives_rotation_and_new_ones_use_the_new_svid() {
    let world = World::new();
    let mut live = world.connect().unwrap();
    pipe::exchange(&mut live.client, &mut live.server, b"before");
    let old = world.server_of(&live).unwrap();

    world
        .server_source
        .set_svid(Arc::new(world.ca.svid("/server", HOUR)));
    world
        .client_source
        .set_svid(Arc::new(world.ca.svid("/client", HOUR)));
    world.server.forget_sessions();
    pipe::exchange(&mut live.client, &mut live.server, b"after");
    live.server.refresh_traffic_keys().unwrap();
    pipe::exchange(&mut live.client, &mut live.server, b"with new keys");

    let fresh = world.connect().unwrap();
    let new = world.server_of(&fresh).unwrap();
    assert_eq!(new.id, old.id);
    assert_ne!(new.serial, old.serial);
    assert_eq!(
        world.server_of(&live).unwrap(),
        old,
        "the old SVID is still valid"
    );
}

#[test]
fn a_ca_rotation_passes_without_a_gap() {
    let world = World::new();
    let next = TestCa::new("example.org");
    let both = || {
        let authorities = vec![world.ca.certificate().clone(), next.certificate().clone()];
        TrustBundle::new(next.trust_domain().clone(), authorities).unwrap()
    };
    let mut live = world.connect().unwrap();
    for source in [&world.server_source, &world.client_source] {
        source.set_bundles(TrustBundleSet::new([both()]));
    }
    world.connect().unwrap();
    world
        .server_source
        .set_svid(Arc::new(next.svid("/server", HOUR)));
    world.connect().unwrap();
    world
        .client_source
        .set_svid(Arc::new(next.intermediate().svid("/client", HOUR)));
    world.connect().unwrap();
    for source in [&world.server_source, &world.client_source] {
        source.set_bundles(TrustBundleSet::new([next.bundle()]));
    }
    world.connect().unwrap();
    // The live connection goes on; whoever asks learns that its peer is not trusted any more.
    pipe::exchange(&mut live.client, &mut live.server, b"still here");
    assert!(matches!(
        world.client_of(&live),
        Err(VerifyError::UnknownAuthority { .. })
    ));
}

/// The verifier asks the source when the certificate arrives, not when the config was made.
#[test]
fn a_handshake_in_progress_is_judged_by_the_bundles_that_hold_now() {
    let world = World::new();
    let mut connection = world.begin();
    world.server_source.set_bundles(TrustBundleSet::default());
    let result = pipe::run(&mut connection.client, &mut connection.server);
    assert!(
        matches!(result, Err(pipe::Failure::Server(_))),
        "{result:?}"
    );
}
