//! FetchX509SVID and FetchX509Bundles.

use std::collections::BTreeMap;

use identity::testing::TestCa;
use proto::workload::{X509BundlesRequest, X509svidRequest, X509svidResponse};
use tonic::{Code, Streaming};
use workload_api::{Denied, Options};

use crate::support::{World, soon};

async fn svids(world: &World) -> Streaming<X509svidResponse> {
    let mut client = world.client().await;
    soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Streaming<X509svidResponse>) -> X509svidResponse {
    soon(stream.message())
        .await
        .unwrap()
        .expect("a message, not the end")
}

#[tokio::test]
async fn wa_11_to_wa_15_the_first_message_comes_at_once_and_is_whole() {
    let world = World::start();
    let context = world.backend.context();
    let mut stream = svids(&world).await;
    let message = next(&mut stream).await;
    let ids: Vec<_> = message
        .svids
        .iter()
        .map(|svid| svid.spiffe_id.as_str())
        .collect();
    // WA-31: in this order.
    assert_eq!(
        ids,
        ["spiffe://one.example/app", "spiffe://one.example/other"]
    );
    for svid in &message.svids {
        // Our own X509Svid takes it: DER, leaf first, and the key is PKCS#8 of that leaf.
        let chain = vec![svid.x509_svid.clone().into()];
        let key = identity::X509Svid::new(
            chain,
            rustls_pki_types::PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone()).into(),
        )
        .unwrap();
        assert_eq!(key.id().as_str(), svid.spiffe_id);
        assert_eq!(svid.bundle, world.backend.ca().certificate().as_ref());
    }
    assert_eq!(message.svids[0].hint, "internal");
    assert!(message.federated_bundles.is_empty());
    assert_eq!(context.svids.len(), 2);
}

#[tokio::test]
async fn wa_04_wa_05_each_change_is_complete_state_and_pushed() {
    let world = World::start();
    let mut stream = svids(&world).await;
    let first = next(&mut stream).await;
    world.backend.rotate();
    let second = next(&mut stream).await;
    assert_eq!(second.svids.len(), 2);
    assert_ne!(first.svids[0].x509_svid, second.svids[0].x509_svid);

    let partner = TestCa::new("two.example");
    world.backend.federate(vec![partner.bundle()]);
    let third = next(&mut stream).await;
    assert_eq!(third.svids.len(), 2);
    let expected = (
        "spiffe://two.example".to_owned(),
        partner.certificate().to_vec(),
    );
    assert_eq!(third.federated_bundles, BTreeMap::from([expected]));

    // What is withdrawn is absent.
    world.backend.federate(vec![]);
    assert!(next(&mut stream).await.federated_bundles.is_empty());
    world.backend.set_identities(&[("/other", "")]);
    let last = next(&mut stream).await;
    assert_eq!(last.svids.len(), 1);
    assert_eq!(last.svids[0].spiffe_id, "spiffe://one.example/other");
}

#[tokio::test]
async fn equal_states_are_not_sent_twice() {
    let world = World::start();
    let context = world.backend.context();
    world.backend.set_x509(context.clone());
    let mut stream = svids(&world).await;
    let first = next(&mut stream).await;
    // Another context, with the same in it: no message. Then one that differs.
    world.backend.set_x509(context.clone());
    tokio::task::yield_now().await;
    let mut changed = context;
    changed.svids.reverse();
    world.backend.set_x509(changed);
    let second = next(&mut stream).await;
    assert_eq!(second.svids[0], first.svids[1]);
}

#[tokio::test]
async fn wa_18_what_is_taken_away_ends_the_stream_with_permission_denied() {
    let world = World::start();
    let mut stream = svids(&world).await;
    next(&mut stream).await;
    world
        .backend
        .deny(&Denied::NoIdentity("no longer".to_owned()));
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "no longer");
}

#[tokio::test]
async fn we_14_a_caller_without_identity_is_denied_and_we_13_one_too_early_is_told_so() {
    let world = World::start();
    for (denied, code) in [
        (
            Denied::NoIdentity("none".to_owned()),
            Code::PermissionDenied,
        ),
        (Denied::Unavailable("later".to_owned()), Code::Unavailable),
    ] {
        world.backend.deny(&denied);
        let mut client = world.client().await;
        let answer = soon(client.fetch_x509svid(X509svidRequest {})).await;
        let status = match answer {
            Err(status) => status,
            Ok(answer) => soon(answer.into_inner().message()).await.unwrap_err(),
        };
        assert_eq!(status.code(), code);
        let answer = soon(client.fetch_x509_bundles(X509BundlesRequest {})).await;
        let status = match answer {
            Err(status) => status,
            Ok(answer) => soon(answer.into_inner().message()).await.unwrap_err(),
        };
        // WA-19.
        assert_eq!(status.code(), code);
    }
}

#[tokio::test]
async fn wa_19_bundles_have_the_own_trust_domain_and_the_federated_ones() {
    let world = World::start();
    let partner = TestCa::new("two.example");
    world.backend.federate(vec![partner.bundle()]);
    let mut client = world.client().await;
    let stream = client.fetch_x509_bundles(X509BundlesRequest {});
    let mut stream = soon(stream).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    let own = world.backend.ca().certificate().to_vec();
    assert_eq!(
        message.bundles,
        BTreeMap::from([
            ("spiffe://one.example".to_owned(), own),
            (
                "spiffe://two.example".to_owned(),
                partner.certificate().to_vec()
            ),
        ])
    );
}

#[tokio::test]
async fn wa_01_a_profile_that_is_off_is_not_implemented() {
    let world = World::with(Options {
        x509: false,
        ..Options::default()
    });
    let mut client = world.client().await;
    let status = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = soon(client.fetch_x509_bundles(X509BundlesRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_stream_ends_when_its_process_does() {
    let world = World::start();
    let mut stream = svids(&world).await;
    next(&mut stream).await;
    world.backend.end_processes();
    soon(stream.message()).await.unwrap_err();
}

#[tokio::test]
async fn ten_streams_get_one_rotation() {
    let world = World::start();
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = svids(&world).await;
        next(&mut stream).await;
        streams.push(stream);
    }
    world.backend.rotate();
    let mut seen = Vec::new();
    for stream in &mut streams {
        seen.push(next(stream).await);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn wa_31_the_order_is_that_of_the_backend_at_every_call() {
    let world = World::start();
    let names = ["/c", "/a", "/b", "/e", "/d"];
    world.backend.set_identities(&names.map(|name| (name, "")));
    let expected = names.map(|name| format!("spiffe://one.example{name}"));
    for _ in 0..5 {
        world.backend.rotate();
        let message = next(&mut svids(&world).await).await;
        let ids: Vec<_> = message
            .svids
            .into_iter()
            .map(|svid| svid.spiffe_id)
            .collect();
        assert_eq!(ids, expected);
    }
}
