//! One issuance serves all workloads that it would be the same for.

use std::collections::HashSet;

use crate::rig::{Rig, fetch, id, jwt, next, soon, svid, workload_identity, x509};

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_identity_cost_one_issuance_and_renew_together() {
    let rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut streams = Vec::new();
    let mut serials = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(rig.client().await);
    }
    for number in 0..200 {
        let client = &mut clients[number % 10];
        streams.push(soon(x509(client)).await.unwrap());
    }
    for stream in &mut streams {
        let message = next(stream).await.unwrap();
        assert_eq!(*svid(&message).id(), id("/app"));
        serials.insert(svid(&message).serial().clone());
    }
    assert_eq!(serials.len(), 1);
    assert_eq!(rig.issued("x509"), 1);

    rig.agent.renew();
    let mut renewed = HashSet::new();
    for stream in &mut streams {
        renewed.insert(svid(&next(stream).await.unwrap()).serial().clone());
    }
    assert_eq!(renewed.len(), 1);
    assert!(serials.is_disjoint(&renewed));
    assert_eq!(rig.issued("x509"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_served_again_and_each_audience_has_its_own() {
    let rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut client = rig.client().await;
    let one = jwt(&mut client, "db").await.unwrap();
    let mut other = rig.client().await;
    assert_eq!(jwt(&mut other, "db").await.unwrap(), one);
    assert_eq!(rig.issued("jwt"), 1);
    let another = jwt(&mut other, "queue").await.unwrap();
    assert_ne!(another, one);
    assert_eq!(rig.issued("jwt"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_label_selects_comes_in_the_issuers_order() {
    let identities = ["c", "a", "b", "e", "d", "f"];
    let resources: String = identities
        .iter()
        .map(|name| workload_identity(name, &format!("/{name}"), ""))
        .collect();
    let rig = Rig::start(&resources, "{ labels: { app: [app] } }");
    let message = fetch(&mut rig.client().await).await.unwrap();
    let ids: Vec<_> = message
        .svids
        .iter()
        .map(|svid| svid.spiffe_id.as_str())
        .collect();
    let expected: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .map(|name| format!("spiffe://e2e.example/{name}"))
        .collect();
    assert_eq!(ids, expected);
}
