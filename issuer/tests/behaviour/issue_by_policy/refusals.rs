//! What is refused: each with one event that names its reason.

use proto::{
    issue::v1::{
        IssueSvidsRequest, JoinAndIssueRequest, WitRequest, X509Request,
        issue_service_client::IssueServiceClient, svid_request::Document as Wanted,
    },
    join::v1::JoinRequest,
};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tonic::Code;

use super::{by_labels, by_name, good, issued, jwt, one, world, x509};
use crate::behaviour::harness::{block_on, csr};

#[test]
fn every_refusal_has_one_event_that_names_its_reason() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let shared = csr(&KeyPair::generate().unwrap());
        let mut short = by_name("plain", x509(1), json!({}));
        short.ttl = Some(prost_types::Duration::default());
        let mut nothing = by_name("plain", x509(1), json!({}));
        nothing.document = None;
        let mut nobody = by_name("plain", x509(1), json!({}));
        nobody.selector = None;
        let with = |path: &str, value: Value| {
            let mut workload = good();
            *workload.pointer_mut(path).unwrap() = value;
            workload
        };
        let long = json!({ "unix": { "binary_path": "a".repeat(70_000) } });
        let cases = [
            (
                by_name("none", x509(1), json!({})),
                "unknown_workload_identity",
                Code::PermissionDenied,
            ),
            (
                by_name("other", x509(1), json!({})),
                "no_role",
                Code::PermissionDenied,
            ),
            (
                by_name("denied", x509(1), json!({})),
                "role_denies",
                Code::PermissionDenied,
            ),
            (
                by_name("web", x509(1), with("/unix/uid", json!(1001))),
                "no_rule",
                Code::PermissionDenied,
            ),
            (
                by_name("web", x509(1), with("/kubernetes/pod_name", json!("debug"))),
                "rule_denies",
                Code::PermissionDenied,
            ),
            (
                by_name("user", x509(1), json!({})),
                "template",
                Code::PermissionDenied,
            ),
            (
                by_name("user", x509(1), json!({ "unix": { "binary_path": "bot" } })),
                "invalid_id",
                Code::PermissionDenied,
            ),
            (
                by_name("abroad", x509(1), json!({})),
                "unknown_federation",
                Code::PermissionDenied,
            ),
            (
                by_name("plain", x509(0), json!({})),
                "invalid_csr",
                Code::InvalidArgument,
            ),
            (
                by_name("plain", x509(2), json!({})),
                "invalid_csr",
                Code::InvalidArgument,
            ),
            (
                by_name(
                    "plain",
                    Wanted::X509(X509Request {
                        csrs_der: vec![vec![0; 40]],
                    }),
                    json!({}),
                ),
                "invalid_csr",
                Code::InvalidArgument,
            ),
            (
                by_name("plain", jwt(&[]), json!({})),
                "invalid_audience",
                Code::InvalidArgument,
            ),
            (
                by_name("plain", jwt(&["a", ""]), json!({})),
                "invalid_audience",
                Code::InvalidArgument,
            ),
            (
                by_name(
                    "plain",
                    Wanted::Wit(WitRequest {
                        csrs_der: vec![shared],
                    }),
                    json!({}),
                ),
                "wit_off",
                Code::Unimplemented,
            ),
            (short, "invalid_ttl", Code::InvalidArgument),
            (nothing, "invalid_request", Code::InvalidArgument),
            (nobody, "invalid_request", Code::InvalidArgument),
            (
                by_name("plain", x509(1), long),
                "invalid_request",
                Code::InvalidArgument,
            ),
            (
                by_labels(&[], "", x509(1)),
                "invalid_request",
                Code::InvalidArgument,
            ),
            (
                by_labels(&[("*", "web")], "", x509(1)),
                "invalid_request",
                Code::InvalidArgument,
            ),
        ];
        for (request, reason, code) in cases {
            let before = issued(&issuer).len();
            let result = one(&issuer, &bot, request).await;
            assert!(result.svids.is_empty(), "{reason}");
            let refusal = result.refusal.unwrap_or_else(|| panic!("{reason}"));
            assert_eq!(
                Code::from(refusal.code),
                code,
                "{reason}: {}",
                refusal.message
            );
            let events = issued(&issuer);
            assert_eq!(events.len(), before + 1, "{reason}");
            let event = events.last().unwrap();
            assert_eq!(event["success"], false);
            assert_eq!(event["fields"]["reason"], reason, "{event}");
            assert_eq!(event["fields"]["bot_name"], "web");
            assert!(event["fields"]["error"].is_string(), "{event}");
        }
        // A batch too long is refused as a whole.
        let many = vec![by_name("plain", jwt(&["a"]), json!({})); 1001];
        let status = issuer.issue_all(&bot, many).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let event = issued(&issuer).pop().unwrap();
        assert_eq!(event["fields"]["reason"], "invalid_request", "{event}");
    });
}

#[test]
fn a_lock_on_whatever_it_is_refuses_from_then_on_and_until_it_goes() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let token = issuer.last_event("bot.join")["fields"]["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let instance = bot.certificate.instance_id.clone();
        for (target, reason) in [
            ("bot: web".to_owned(), "locked"),
            (format!("bot_instance_id: {instance}"), "locked"),
            (format!("join_token: {token}"), "locked"),
            ("role: web".to_owned(), "locked_identity"),
            ("workload_identity: plain".to_owned(), "locked_identity"),
            (
                "spiffe_id: 'spiffe://test.example/plain'".to_owned(),
                "locked_identity",
            ),
        ] {
            issuer.issue(&bot, "plain").await.unwrap();
            issuer.apply(&format!(
                "kind: lock\nversion: v1\nmetadata: {{ name: test }}\n\
                 spec: {{ target: {{ {target} }}, message: under investigation }}\n"
            ));
            let before = issued(&issuer).len();
            let status = issuer.issue(&bot, "plain").await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{target}");
            assert!(!status.message().contains("investigation"), "{status}");
            let events = issued(&issuer);
            assert_eq!(events.len(), before + 1);
            let fields = &events.last().unwrap()["fields"];
            assert_eq!(fields["reason"], reason, "{target}");
            let error = fields["error"].as_str().unwrap();
            assert!(error.contains("under investigation"), "{error}");
            issuer.run(&["delete", "lock/test"]);
        }
        issuer.issue(&bot, "plain").await.unwrap();
    });
}

/// Whoever has no certificate, or sends what is no request to join: recorded once a window
/// for where it comes from, as it costs nothing to repeat.
#[test]
fn a_stranger_that_is_refused_is_recorded_once_a_window() {
    block_on(async {
        let (issuer, _bot) = world(&[]).await;
        let mut stranger = IssueServiceClient::new(issuer.anonymous().await);
        let no_evidence = JoinAndIssueRequest::default();
        let too_many = JoinAndIssueRequest {
            join: Some(JoinRequest::default()),
            requests: vec![by_name("plain", jwt(&["a"]), json!({})); 101],
        };
        for round in 0..2 {
            let before = issuer.audit().len();
            let asked = IssueSvidsRequest {
                requests: vec![by_name("plain", jwt(&["a"]), json!({}))],
            };
            let status = stranger.issue_svids(asked).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{status}");
            let status = stranger.join_and_issue(no_evidence.clone()).await;
            assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
            let status = stranger.join_and_issue(too_many.clone()).await;
            assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
            let told: Vec<_> = issuer.audit().split_off(before);
            if round > 0 {
                assert!(told.is_empty(), "{told:?}");
                continue;
            }
            let told: Vec<_> = told
                .iter()
                .map(|event| {
                    let fields = &event["fields"];
                    assert!(fields["remote_address"].is_string(), "{event}");
                    assert!(fields["error"].is_string(), "{event}");
                    (
                        event["event"].as_str().unwrap(),
                        fields["reason"].as_str().unwrap(),
                    )
                })
                .collect();
            assert_eq!(
                told,
                [
                    ("spiffe.svid.issued", "not_a_bot"),
                    ("bot.join", "invalid_request")
                ]
            );
        }
    });
}

/// Before anybody knows who asks, what a stranger sends costs no more than its bytes.
#[test]
fn a_flood_of_unknown_attributes_is_read_at_once() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let group: serde_json::Map<_, _> = (0..3000)
            .map(|number| (format!("uid{number:04}"), json!(true)))
            .collect();
        let flood = json!({ "unix": group });
        let requests = vec![by_name("plain", jwt(&["a"]), flood); 15];
        let begun = std::time::Instant::now();
        let results = issuer.issue_all(&bot, requests).await.unwrap();
        let took = begun.elapsed();
        assert!(results.iter().all(|result| result.svids.len() == 1));
        // 45,000 names; to look for what each may have meant took half a minute.
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    });
}

/// The agent shares an answer among all workloads that agree in what it depends on: what
/// is wrong with one of them alone must not be everybody's.
#[test]
fn too_many_attributes_of_one_workload_are_its_own_trouble() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let labels: serde_json::Map<_, _> = (0..700)
            .map(|number| (format!("label-{number:0100}"), json!("yes")))
            .collect();
        let flood = json!({ "kubernetes": { "labels": labels } });
        let requests = vec![
            by_name("plain", jwt(&["a"]), flood),
            by_name("plain", jwt(&["a"]), json!({})),
        ];
        let results = issuer.issue_all(&bot, requests).await.unwrap();
        let refusal = results[0].refusal.as_ref().unwrap();
        assert_eq!(refusal.code, i32::from(Code::InvalidArgument));
        assert_eq!(results[0].reads, None);
        assert_eq!(results[1].svids.len(), 1);
        assert!(results[1].reads.is_some());
    });
}
