//! What is issued, to whom, for how long; and what is refused, saying how much.

use std::time::{Duration, SystemTime};

use proto::issue::v1::issue_service_client::IssueServiceClient;
use rcgen::KeyPair;
use tonic::Code;

use super::harness::{Issuer, block_on, chain, csr, serial, the_svid, time, x509};

const RESOURCES: &str = "
kind: workload_identity
version: v1
metadata: { name: web, labels: { app: web, env: prod } }
spec: { spiffe: { id: /apps/web, hint: the web, x509: { maximum_ttl: 10m, dns_sans: [web.example.org] } } }
---
kind: workload_identity
version: v1
metadata: { name: other, labels: { app: other } }
spec: { spiffe: { id: /apps/other } }
---
kind: role
version: v1
metadata: { name: web }
spec: { allow: { workload_identity_labels: { app: [web, api], env: '*' } } }
";

#[test]
fn an_allowed_identity_is_issued_and_recorded_with_all_that_led_to_it() {
    let issuer = Issuer::start();
    issuer.apply(RESOURCES);
    let token = issuer.token("web");
    let grant = block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        issuer.issue(&bot, "web").await.unwrap()
    });
    assert_eq!(grant.spiffe_id, "spiffe://test.example/apps/web");
    assert_eq!(grant.hint, "the web");
    assert_eq!(grant.workload_identity_revision, 1);
    assert_eq!(grant.ttl.unwrap().seconds, 600);
    let now = SystemTime::now();
    let not_before = now.duration_since(time(grant.not_before)).unwrap();
    assert!((60..70).contains(&not_before.as_secs()), "{not_before:?}");
    let event = issuer.last_event("spiffe.svid.issued");
    assert_eq!(event["success"], true);
    let fields = &event["fields"];
    for (field, value) in [
        ("spiffe_id", "spiffe://test.example/apps/web"),
        ("serial_number", serial(&grant).as_str()),
        ("svid_type", "x509"),
        ("workload_identity", "web"),
        ("role", "web"),
        ("bot_name", "web"),
        ("hint", "the web"),
        ("join_method", "token"),
    ] {
        assert_eq!(fields[field], value, "{field}");
    }
    assert_eq!(fields["ttl_seconds"], 600);
    assert_eq!(fields["workload_identity_revision"], 1);
    assert_eq!(fields["dns_sans"][0], "web.example.org");
    for field in [
        "not_after",
        "public_key_sha256",
        "bot_instance_id",
        "remote_address",
    ] {
        assert!(fields[field].is_string(), "{field}: {fields}");
    }
}

#[test]
fn an_unknown_identity_and_a_forbidden_one_look_the_same_to_the_bot() {
    let issuer = Issuer::start();
    issuer.apply(RESOURCES);
    let token = issuer.token("web");
    block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        let forbidden = issuer.issue(&bot, "other").await.err().unwrap();
        let event = issuer.last_event("spiffe.svid.issued");
        assert_eq!(event["success"], false);
        assert_eq!(event["fields"]["reason"], "no_role");
        let unknown = issuer.issue(&bot, "none").await.err().unwrap();
        let event = issuer.last_event("spiffe.svid.issued");
        assert_eq!(event["fields"]["reason"], "unknown_workload_identity");
        assert_eq!(event["fields"]["workload_identity"], "none");
        let nonsense = issuer.issue(&bot, "\u{0}../").await.err().unwrap();
        for status in [&forbidden, &unknown, &nonsense] {
            assert_eq!(status.code(), Code::PermissionDenied);
            assert_eq!(status.message(), forbidden.message());
        }
        // A role that is taken away is gone with the next call.
        issuer.issue(&bot, "web").await.unwrap();
        issuer.apply("kind: bot\nversion: v1\nmetadata: { name: web }\nspec: { roles: [] }\n");
        issuer.issue(&bot, "web").await.err().unwrap();
    });
}

#[test]
fn lives_are_bounded_and_nonsense_is_refused() {
    let issuer = Issuer::start();
    issuer.apply(RESOURCES);
    let token = issuer.token("web");
    block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let key = KeyPair::generate().unwrap();
        let request = |seconds, nanos| {
            let ttl = prost_types::Duration { seconds, nanos };
            x509("web", &csr(&key), Some(ttl))
        };
        for (wanted, granted) in [(1, 1), (60, 60), (600, 600), (601, 600), (i64::MAX, 600)] {
            let answer = the_svid(client.issue_svids(request(wanted, 0)).await).unwrap();
            assert_eq!(answer.ttl.unwrap().seconds, granted);
            let life = time(answer.not_after)
                .duration_since(time(answer.not_before))
                .unwrap();
            assert_eq!(life, Duration::from_secs(granted as u64 + 60));
        }
        for (seconds, nanos) in [(0, 0), (-1, 0), (0, 500_000_000), (60, 1), (i64::MIN, -1)] {
            let answer = client.issue_svids(request(seconds, nanos)).await;
            let status = the_svid(answer).err().unwrap();
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{seconds} s {nanos} ns"
            );
        }
    });
    assert_eq!(
        issuer.last_event("spiffe.svid.issued")["fields"]["reason"],
        "invalid_ttl"
    );
}

#[test]
fn nobody_gets_anything_without_a_bots_certificate() {
    let issuer = Issuer::start();
    issuer.apply(RESOURCES);
    let token = issuer.token("web");
    block_on(async {
        let key = KeyPair::generate().unwrap();
        let request = x509("web", &csr(&key), None);
        let mut client = IssueServiceClient::new(issuer.anonymous().await);
        let status = client.issue_svids(request.clone()).await.err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated);

        // A workload's SVID is no bot's.
        let mut bot = issuer.join(&token).await.unwrap();
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let svid = the_svid(client.issue_svids(request.clone()).await).unwrap();
        bot.certificate.chain_der = chain(&svid);
        bot.key = key;
        let config = bot.tls();
        let refused = super::harness::try_issue(&issuer.address, config, request).await;
        assert!(refused.is_err());
    });
    let arguments = ["audit", "--follow", "--event", "connect", "--limit", "1"];
    let recorded = issuer.run(&[&arguments[..], &["-o", "json"]].concat());
    assert!(recorded.contains("not_a_bot"), "{recorded}");
    assert!(
        recorded.contains("spiffe://test.example/apps/web"),
        "{recorded}"
    );
}

#[test]
fn an_expired_bot_certificate_is_refused_on_a_connection_that_outlived_it() {
    let issuer = Issuer::start_with(&["--bot-ttl", "2s"]);
    issuer.apply(RESOURCES);
    let token = issuer.token("web");
    block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let request = x509("web", &csr(&key), None);
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        the_svid(client.issue_svids(request.clone()).await).unwrap();
        let mut news = client
            .watch(proto::issue::v1::WatchRequest {})
            .await
            .unwrap()
            .into_inner();
        news.message().await.unwrap().unwrap();
        // The stream itself tells when the certificate has ended.
        assert_eq!(
            news.message().await.err().unwrap().code(),
            Code::Unauthenticated
        );
        for _ in 0..3 {
            let status = client.issue_svids(request.clone()).await;
            assert_eq!(status.err().unwrap().code(), Code::Unauthenticated);
        }
    });
    let denied = issuer.last_event("spiffe.svid.issued");
    assert_eq!(denied["fields"]["reason"], "expired_certificate");
    assert_eq!(denied["fields"]["bot_name"], "web");
    assert_eq!(denied["fields"]["attempts"], 1);
}
