//! A change of policy, a lock and a new key of the authority reach open streams.

use tonic::Code;

use crate::rig::{Rig, authorities, fetch, id, next, soon, svid, workload_identity, x509};

#[tokio::test(flavor = "multi_thread")]
async fn wa_18_a_lock_takes_the_identity_from_open_streams_and_its_end_gives_it_back() {
    let rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut stream = soon(x509(&mut rig.client().await)).await.unwrap();
    next(&mut stream).await.unwrap();
    rig.apply(
        "kind: lock\nversion: v1\nmetadata: { name: stop }\n\
         spec: { target: { workload_identity: app }, message: stolen }\n",
    );
    let taken = next(&mut stream).await.unwrap_err();
    assert_eq!(taken.code(), Code::PermissionDenied, "{taken}");
    let refused = fetch(&mut rig.client().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    rig.issuer.run(&["delete", "lock/stop"]);
    soon(async {
        while fetch(&mut rig.client().await).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wa_18_one_of_several_identities_is_taken_away() {
    let both = workload_identity("a", "/a", "") + &workload_identity("b", "/b", "");
    let rig = Rig::start(&both, "{ labels: { app: [app] } }");
    let mut stream = soon(x509(&mut rig.client().await)).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    rig.issuer.run(&["delete", "workload_identity/a"]);
    let message = next(&mut stream).await.unwrap();
    assert_eq!(message.svids.len(), 1);
    assert_eq!(*svid(&message).id(), id("/b"));
    rig.issuer.run(&["delete", "workload_identity/b"]);
    let taken = next(&mut stream).await.unwrap_err();
    assert_eq!(taken.code(), Code::PermissionDenied, "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_resource_is_a_changed_svid() {
    let rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut stream = soon(x509(&mut rig.client().await)).await.unwrap();
    next(&mut stream).await.unwrap();
    rig.apply(&workload_identity("app", "/other", ""));
    let message = next(&mut stream).await.unwrap();
    assert_eq!(*svid(&message).id(), id("/other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wa_05_a_new_authority_reaches_open_streams() {
    let rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut stream = soon(x509(&mut rig.client().await)).await.unwrap();
    assert_eq!(authorities(&next(&mut stream).await.unwrap()), 1);
    rig.issuer.run(&["authority", "rotate", "--use", "x509"]);
    let message = next(&mut stream).await.unwrap();
    assert_eq!(authorities(&message), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_bot_loses_its_identities() {
    let rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut stream = soon(x509(&mut rig.client().await)).await.unwrap();
    next(&mut stream).await.unwrap();
    rig.apply(
        "kind: lock\nversion: v1\nmetadata: { name: stop }\n\
         spec: { target: { bot: app }, message: stolen }\n",
    );
    let taken = next(&mut stream).await.unwrap_err();
    assert_eq!(taken.code(), Code::PermissionDenied, "{taken}");
}
