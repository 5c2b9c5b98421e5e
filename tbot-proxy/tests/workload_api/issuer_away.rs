//! While the issuer is away, what is held is served.

use proto::workload::ValidateJwtsvidRequest;
use tonic::Code;

use crate::rig::{Rig, fetch, id, jwt, next, soon, svid, workload_identity, x509};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_served_and_validated_while_the_issuer_is_away() {
    let mut rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut client = rig.client().await;
    let mut stream = soon(x509(&mut client)).await.unwrap();
    let before = svid(&next(&mut stream).await.unwrap());
    let token = jwt(&mut client, "db").await.unwrap();
    rig.issuer.kill();

    let served = svid(&fetch(&mut rig.client().await).await.unwrap());
    assert_eq!(served.serial(), before.serial());
    assert_eq!(jwt(&mut client, "db").await.unwrap(), token);
    let valid = soon(client.validate_jwtsvid(ValidateJwtsvidRequest {
        audience: "db".to_owned(),
        svid: token,
    }));
    assert_eq!(
        valid.await.unwrap().into_inner().spiffe_id,
        id("/app").to_string()
    );
    let unknown = jwt(&mut client, "not asked before").await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unavailable, "{unknown}");
    assert!(rig.agent.is_ready());

    rig.issuer.restart();
    rig.agent.renew();
    let renewed = svid(&next(&mut stream).await.unwrap());
    assert_ne!(renewed.serial(), before.serial());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_unavailable_when_the_agent_ends() {
    let mut rig = Rig::start(&workload_identity("app", "/app", ""), "{ name: app }");
    let mut stream = soon(x509(&mut rig.client().await)).await.unwrap();
    next(&mut stream).await.unwrap();
    rig.agent.process().signal(rustix::process::Signal::TERM);
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert!(rig.agent.process().wait().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_restarted_while_the_issuer_is_away_finds_its_identity() {
    let template = workload_identity("user", "/user/{{ workload.unix.uid }}", "");
    let mut rig = Rig::start(&template, "{ name: user }");
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: it needs root to act as other users");
        return;
    }
    // The process ends, and nobody is left for whom this identity would be renewed.
    let id = "spiffe://e2e.example/user/4003";
    assert_eq!(rig.as_user(4_003), id);
    rig.issuer.kill();
    rig.agent.renew();
    assert_eq!(rig.as_user(4_003), id);
    // Another user was never granted anything.
    assert_eq!(rig.as_user(4_004), "Unavailable");
    rig.issuer.restart();
    let granted = rig.issued("x509");
    rig.agent.renew();
    assert_eq!(rig.as_user(4_003), id);
    assert_eq!(granted, 1);
}
