//! The `spiffe` crate: its sources over a rotation.

use identity::testing::TestCa;
use spiffe::{JwtSource, TrustDomain, X509Source};

use crate::support::{World, soon};

#[tokio::test]
async fn rust_spiffes_x509_source_follows_a_rotation_and_federation() {
    let world = World::start();
    let endpoint = format!("unix://{}", world.socket().display());
    let source = X509Source::builder().endpoint(&endpoint).build();
    let source = soon(source).await.unwrap();
    let first = source.svid().unwrap();
    assert_eq!(first.spiffe_id().to_string(), "spiffe://one.example/app");
    let mut updates = source.updated();
    world.backend.rotate();
    soon(updates.changed()).await.unwrap();
    let second = source.svid().unwrap();
    assert_ne!(first.leaf().as_bytes(), second.leaf().as_bytes());

    let partner = TrustDomain::new("two.example").unwrap();
    assert!(source.try_bundle_for_trust_domain(&partner).is_none());
    world
        .backend
        .federate(vec![TestCa::new("two.example").bundle()]);
    soon(updates.changed()).await.unwrap();
    assert!(source.try_bundle_for_trust_domain(&partner).is_some());
    soon(source.shutdown()).await;
}

#[tokio::test]
async fn rust_spiffes_jwt_source_gets_tokens_and_bundles() {
    let world = World::start();
    let endpoint = format!("unix://{}", world.socket().display());
    let source = soon(JwtSource::builder().endpoint(&endpoint).build())
        .await
        .unwrap();
    let token = soon(source.fetch_jwt_svid(["a"])).await.unwrap();
    assert_eq!(token.spiffe_id().to_string(), "spiffe://one.example/app");
    let own = TrustDomain::new("one.example").unwrap();
    assert!(source.try_bundle_for_trust_domain(&own).is_some());
    let mut updates = source.updated();
    world
        .backend
        .federate(vec![TestCa::new("two.example").bundle()]);
    soon(updates.changed()).await.unwrap();
    let partner = TrustDomain::new("two.example").unwrap();
    assert!(source.try_bundle_for_trust_domain(&partner).is_some());
    soon(source.shutdown()).await;
}
