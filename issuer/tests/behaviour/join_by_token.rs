//! A token makes one bot instance, once, while it lives.

use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use proto::join::v1::{
    JoinRequest, TokenEvidence, join_request::Evidence, join_service_client::JoinServiceClient,
};
use tonic::Code;

use super::harness::{Issuer, block_on, csr, time};

#[test]
fn a_token_joins_once_and_the_wire_does_not_tell_why_not() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = issuer.token("app");
    let short = issuer.json(&["bot", "add", "app", "--ttl", "1s"]);
    let short = short["token"].as_str().unwrap().to_owned();
    block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        let certificate = &bot.certificate;
        assert_eq!(certificate.generation, 1);
        assert_eq!(certificate.bot_name, "app");
        let life = time(certificate.not_after)
            .duration_since(SystemTime::now())
            .unwrap();
        assert!(life <= Duration::from_secs(3600) && life > Duration::from_secs(3590));
        let half = time(certificate.renew_at)
            .duration_since(SystemTime::now())
            .unwrap();
        assert!(half <= Duration::from_secs(1800) && half > Duration::from_secs(1790));
        let leaf = openssl_subject_alt_name(&certificate.chain_der[0]);
        let id = format!("spiffe://test.example/bot/app/{}", certificate.instance_id);
        assert!(SpiffeId::parse(&id).is_ok());
        assert!(leaf.contains(&id), "{leaf}");

        // The token's own life is what is waited for.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let unknown = "0".repeat(64);
        let mut messages = Vec::new();
        for wrong in [&token, &short, &unknown] {
            let status = issuer.join(wrong).await.err().unwrap();
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(!status.message().contains(wrong.as_str()));
            messages.push(status.message().to_owned());
        }
        messages.dedup();
        assert_eq!(messages.len(), 1, "{messages:?}");
    });
    let joins: Vec<_> = issuer
        .audit()
        .into_iter()
        .filter(|event| event["event"] == "bot.join")
        .collect();
    let reasons: Vec<_> = joins
        .iter()
        .map(|event| event["fields"]["reason"].as_str().unwrap_or("ok"))
        .collect();
    assert_eq!(
        reasons,
        ["ok", "used_token", "expired_token", "unknown_token"]
    );
    assert_eq!(joins[0]["fields"]["hostname"], "test-host");
    assert!(
        joins[0]["fields"]["remote_address"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert!(
        joins
            .iter()
            .all(|join| join["success"] == (join["fields"]["reason"].is_null()))
    );
}

#[test]
fn two_joins_at_once_by_one_token_make_one_instance() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = issuer.token("app");
    block_on(async {
        let tries = (0..8).map(|_| issuer.join(&token));
        let results = futures_util::future::join_all(tries).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    });
    assert_eq!(
        issuer.json(&["bot", "instances"]).as_array().unwrap().len(),
        1
    );
}

#[test]
fn a_bad_request_leaves_the_token_unused() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = issuer.token("app");
    block_on(async {
        let mut client = JoinServiceClient::new(issuer.anonymous().await);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut forged = csr(&key);
        *forged.last_mut().unwrap() ^= 1;
        for csr_der in [Vec::new(), forged, vec![0x30; 20_000]] {
            let request = JoinRequest {
                csr_der,
                evidence: Some(Evidence::Token(TokenEvidence {
                    token: token.clone(),
                })),
                agent: None,
            };
            let status = client.join(request).await.err().unwrap();
            assert_eq!(status.code(), Code::InvalidArgument);
        }
        let status = client.join(JoinRequest::default()).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        issuer.join(&token).await.unwrap();
    });
}

#[test]
fn failed_joins_from_one_address_are_limited() {
    let issuer = Issuer::start();
    issuer.register("app");
    let token = issuer.token("app");
    block_on(async {
        let mut codes = Vec::new();
        for number in 0..30 {
            let wrong = format!("{number:064}");
            codes.push(issuer.join(&wrong).await.err().unwrap().code());
        }
        assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
        // The right token has to wait too: the limit does not tell it apart.
        let status = issuer.join(&token).await.err().unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
    });
    let denied = issuer
        .audit()
        .iter()
        .filter(|event| event["event"] == "bot.join")
        .count();
    assert!(denied < 30, "{denied}");
    // Those beyond the limit are one record, so that nobody floods the log.
    let limited = issuer
        .audit()
        .iter()
        .filter(|event| event["fields"]["reason"] == "rate_limited")
        .count();
    assert_eq!(limited, 1);
}

#[test]
fn a_deleted_bot_takes_its_tokens_and_instances_with_it() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let token = issuer.token("app");
        issuer.run(&["delete", "bot/app"]);
        assert_eq!(
            issuer.join(&token).await.err().unwrap().code(),
            Code::Unauthenticated
        );
        // A new bot of the same name is not the old one.
        issuer.token("app");
        let status = issuer.issue(&bot, "app").await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
        let status = issuer
            .renew(&bot, &rcgen::KeyPair::generate().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
    });
    assert_eq!(
        issuer.last_event("bot.renew")["fields"]["reason"],
        "unknown_instance"
    );
}

fn openssl_subject_alt_name(der: &[u8]) -> String {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut child = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-noout", "-ext", "subjectAltName"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(der).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
