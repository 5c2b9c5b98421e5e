//! What a process is decides what it gets.

use tonic::Code;

use crate::rig::{Rig, client, fetch, id, svid, workload_identity};

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_made_of_what_the_kernel_says_of_the_caller() {
    let rig = Rig::start(
        &workload_identity("user", "/user/{{ workload.unix.uid }}", ""),
        "{ name: user }",
    );
    let message = fetch(&mut rig.client().await).await.unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(*svid(&message).id(), id(&format!("/user/{uid}")));
    assert_eq!(rig.issued("x509"), 1);
    if uid != 0 {
        eprintln!("SKIPPED the rest: it needs root to act as other users");
        return;
    }
    assert_eq!(rig.as_user(4_001), "spiffe://e2e.example/user/4001");
    assert_eq!(rig.as_user(4_002), "spiffe://e2e.example/user/4002");
    assert_eq!(rig.issued("x509"), 3);
    // Another process of a user that is known.
    assert_eq!(rig.as_user(4_001), "spiffe://e2e.example/user/4001");
    assert_eq!(rig.issued("x509"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn we_14_a_caller_that_no_rule_allows_gets_nothing() {
    let rule = ", rules: { allow: [ { expression: 'workload.unix.uid == 4001' } ] }";
    let rig = Rig::start(&workload_identity("app", "/app", rule), "{ name: app }");
    let refused = fetch(&mut rig.client().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(rig.as_user(4_001), "spiffe://e2e.example/app");
        assert_eq!(rig.as_user(4_002), "PermissionDenied");
    } else {
        eprintln!("SKIPPED the rest: it needs root to act as other users");
    }
    // What one is granted is not for the other.
    let refused = fetch(&mut rig.client().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

/// Run by [`Rig::as_user`].
#[tokio::test]
#[ignore = "the client of another test"]
async fn client_as_another_user() {
    let socket = std::env::var("SPIFFE_ENDPOINT_SOCKET").unwrap();
    let mut client = client(socket.into()).await;
    match fetch(&mut client).await {
        Ok(message) => println!("answer: {}", svid(&message).id()),
        Err(status) => println!("answer: {:?}", status.code()),
    }
}
