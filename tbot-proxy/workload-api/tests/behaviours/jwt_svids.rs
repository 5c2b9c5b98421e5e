//! FetchJWTSVID, FetchJWTBundles, ValidateJWTSVID.

use proto::workload::{JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest};
use serde_json::Value;
use tonic::Code;
use workload_api::{Denied, Options};

use crate::support::{World, soon};

fn wanted(audiences: &[&str], id: &str) -> JwtsvidRequest {
    JwtsvidRequest {
        audience: audiences.iter().map(|it| (*it).to_owned()).collect(),
        spiffe_id: id.to_owned(),
    }
}

#[tokio::test]
async fn wa_20_wa_21_wa_22_tokens_of_all_identities_or_of_the_one_that_is_asked_for() {
    let world = World::start();
    let mut client = world.client().await;
    let all = soon(client.fetch_jwtsvid(wanted(&["a", "b"], "")))
        .await
        .unwrap()
        .into_inner();
    let ids: Vec<_> = all
        .svids
        .iter()
        .map(|svid| svid.spiffe_id.as_str())
        .collect();
    assert_eq!(
        ids,
        ["spiffe://one.example/app", "spiffe://one.example/other"]
    );
    assert_eq!(all.svids[0].hint, "internal");
    let id = "spiffe://one.example/other";
    let one = soon(client.fetch_jwtsvid(wanted(&["a", "b"], id)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(one.svids.len(), 1);
    assert_eq!(one.svids[0].spiffe_id, id);
    for audience in ["a", "b"] {
        let asked = ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: one.svids[0].svid.clone(),
        };
        let valid = soon(client.validate_jwtsvid(asked))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(valid.spiffe_id, id);
        // WA-26.
        let claims = valid.claims.unwrap().fields;
        for name in ["sub", "aud", "exp"] {
            assert!(claims.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn wa_23_another_identity_is_denied() {
    let world = World::start();
    let mut client = world.client().await;
    let other = wanted(&["a"], "spiffe://one.example/not-mine");
    let status = soon(client.fetch_jwtsvid(other)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    world.backend.deny(&Denied::NoIdentity("none".to_owned()));
    let status = soon(client.fetch_jwtsvid(wanted(&["a"], "")))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn wa_08_what_is_mandatory_and_missing_or_too_much_is_an_invalid_argument() {
    let world = World::start();
    let mut client = world.client().await;
    let long = "x".repeat(2049);
    let many: Vec<String> = (0..33).map(|index| index.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for wrong in [
        wanted(&[], ""),
        wanted(&[""], ""),
        wanted(&["a", ""], ""),
        wanted(&[&long], ""),
        wanted(&many, ""),
        wanted(&["a"], "not-an-id"),
    ] {
        let status = soon(client.fetch_jwtsvid(wrong)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    for (audience, svid) in [("", "x.y.z"), ("a", ""), ("a", "no token")] {
        let asked = ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: svid.to_owned(),
        };
        let status = soon(client.validate_jwtsvid(asked)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

#[tokio::test]
async fn wa_25_a_token_of_another_audience_or_signer_is_not_valid() {
    let world = World::start();
    let mut client = world.client().await;
    let issued = soon(client.fetch_jwtsvid(wanted(&["a"], "")))
        .await
        .unwrap()
        .into_inner();
    let token = &issued.svids[0].svid;
    let stranger = identity::testing::TokenSigner::new(identity::Algorithm::Es256);
    let claims = serde_json::json!({
        "sub": "spiffe://one.example/app", "aud": "a", "exp": 4_000_000_000_u64,
    });
    let forged = stranger.token(&stranger.header("JWT"), &claims);
    let unknown = serde_json::json!({
        "sub": "spiffe://unknown.example/app", "aud": "a", "exp": 4_000_000_000_u64,
    });
    let signer = world.backend.jwt_signer();
    let unknown = signer.token(&signer.header("JWT"), &unknown);
    for (audience, svid) in [("b", token), ("a", &forged), ("a", &unknown)] {
        let asked = ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: svid.clone(),
        };
        let status = soon(client.validate_jwtsvid(asked)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(
            !status.message().contains(svid.as_str()),
            "the token is in the message"
        );
    }
}

#[tokio::test]
async fn wa_24_jwt_bundles_are_plain_jwk_sets_with_the_own_trust_domain() {
    let world = World::start();
    let mut client = world.client().await;
    let stream = client.fetch_jwt_bundles(JwtBundlesRequest {});
    let mut stream = soon(stream).await.unwrap().into_inner();
    let message = soon(stream.message()).await.unwrap().unwrap();
    let own: Value = serde_json::from_slice(&message.bundles["spiffe://one.example"]).unwrap();
    let keys = own["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["kid"], world.backend.jwt_signer().key_id());
    let partner = identity::testing::TestCa::new("two.example");
    world.backend.federate(vec![partner.bundle()]);
    let message = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(message.bundles.len(), 2);
}

#[tokio::test]
async fn wa_01_the_jwt_profile_can_be_switched_off() {
    let world = World::with(Options {
        jwt: false,
        ..Options::default()
    });
    let mut client = world.client().await;
    let status = soon(client.fetch_jwtsvid(wanted(&["a"], "")))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = soon(client.fetch_jwt_bundles(JwtBundlesRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let asked = ValidateJwtsvidRequest::default();
    let status = soon(client.validate_jwtsvid(asked)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
