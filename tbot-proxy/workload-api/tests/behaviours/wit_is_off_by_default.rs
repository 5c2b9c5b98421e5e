//! FetchWITSVID and FetchWITBundles.

use proto::workload::{WitBundlesRequest, WitsvidRequest};
use serde_json::Value;
use tonic::Code;
use workload_api::{Denied, Options};

use crate::support::{World, soon};

#[tokio::test]
async fn wa_28_without_the_option_both_are_not_implemented() {
    let world = World::start();
    let mut client = world.client().await;
    let status = soon(client.fetch_witsvid(WitsvidRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = soon(client.fetch_wit_bundles(WitBundlesRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn wa_29_with_it_tokens_come_with_their_keys_as_private_jwks() {
    let world = World::with(Options {
        wit: true,
        ..Options::default()
    });
    let mut client = world.client().await;
    let stream = client.fetch_witsvid(WitsvidRequest::default());
    let mut stream = soon(stream).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 2);
    let key: Value = serde_json::from_str(&message.svids[0].wit_svid_key).unwrap();
    assert_eq!(key["kty"], "EC");
    for member in ["crv", "alg", "x", "y", "d"] {
        assert!(key[member].is_string(), "{member}");
    }
    assert_eq!(message.svids[0].wit_svid.split('.').count(), 3);
    let one = WitsvidRequest {
        spiffe_id: "spiffe://one.example/other".to_owned(),
    };
    let mut stream = soon(client.fetch_witsvid(one)).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.svids.len(), 1);
    assert_eq!(message.svids[0].spiffe_id, "spiffe://one.example/other");

    let stream = client.fetch_wit_bundles(WitBundlesRequest {});
    let mut stream = soon(stream).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    let own: Value = serde_json::from_str(&message.bundles["spiffe://one.example"]).unwrap();
    assert_eq!(own["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn wa_30_what_is_taken_away_ends_the_stream_with_permission_denied() {
    let world = World::with(Options {
        wit: true,
        ..Options::default()
    });
    let mut client = world.client().await;
    let stream = client.fetch_witsvid(WitsvidRequest::default());
    let mut stream = soon(stream).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    world
        .backend
        .deny(&Denied::NoIdentity("no longer".to_owned()));
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}
