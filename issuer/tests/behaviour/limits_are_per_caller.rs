//! What one bot asks for beyond its limits is refused, and costs the others nothing.

use proto::issue::v1::issue_service_client::IssueServiceClient;
use rcgen::KeyPair;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::harness::{Bot, Issuer, block_on, csr, x509};

/// A home with a configuration of these limits.
fn start(limits: &str) -> (tempfile::TempDir, Issuer) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    std::fs::write(&file, format!("limits: {{ {limits} }}\n")).unwrap();
    let issuer = Issuer::start_with(&["--config", file.to_str().unwrap()]);
    (home, issuer)
}

/// Asks so many times, some at once, over one connection.
async fn ask(issuer: &Issuer, bot: &Bot, name: &str, times: usize) -> (usize, Vec<Status>) {
    let client = IssueServiceClient::new(issuer.as_bot(bot).await);
    let request = x509(name, &csr(&KeyPair::generate().unwrap()), None);
    let calls = (0..times).map(|_| {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.issue_svids(request).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    (times - refused.len(), refused)
}

#[test]
fn a_flood_by_one_bot_is_cut_to_its_share_and_another_gets_all_of_its_own() {
    // So slow a rate that what is granted is the burst alone.
    let (_home, issuer) = start("issue_per_second_per_bot: 1, issue_burst_per_bot: 40");
    block_on(async {
        let wild = issuer.joined("wild").await;
        let calm = issuer.joined("calm").await;
        let flood = ask(&issuer, &wild, "wild", 400);
        let work = ask(&issuer, &calm, "calm", 30);
        let ((granted, refused), (calm_granted, calm_refused)) =
            futures_util::future::join(flood, work).await;
        assert_eq!(calm_granted, 30, "{calm_refused:?}");
        // One a second comes back while it runs, however long that takes.
        assert!((40..200).contains(&granted), "{granted}");
        for status in &refused {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            assert!(status.message().contains("try again in"), "{status}");
            assert!(status.metadata().get("retry-after").is_some());
            assert!(status.get_details_retry_info().is_some());
            assert!(status.metadata().get("x-request-id").is_some());
        }
        let events = issuer.audit();
        let of = |bot: &str, success: bool| {
            let mine = events.iter().filter(|event| {
                event["event"] == "spiffe.svid.issued"
                    && event["fields"]["bot_name"] == bot
                    && event["success"] == success
            });
            mine.cloned().collect::<Vec<_>>()
        };
        assert_eq!(of("wild", true).len(), granted);
        assert_eq!(of("calm", true).len(), 30);
        assert!(of("calm", false).is_empty());
        // One event a window, however many were refused.
        let told = of("wild", false);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["fields"]["reason"], "rate_limited");
        assert_eq!(told[0]["fields"]["limit"], "issue_per_second_per_bot");
    });
}

#[test]
fn calls_under_way_and_streams_of_an_instance_are_bounded_over_all_its_connections() {
    use proto::issue::v1::WatchRequest;
    let (_home, issuer) = start("streams_per_instance: 2");
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
            let stream = client.watch(WatchRequest {}).await.unwrap().into_inner();
            open.push((client, stream));
        }
        let mut third = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let status = third.watch(WatchRequest {}).await.err().unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("limits.streams_per_instance"));
        issuer.issue(&bot, "app").await.unwrap();
        // A stream that ends gives its place back.
        open.pop();
        let again = async {
            while let Err(status) = third.watch(WatchRequest {}).await {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, again).await.unwrap();
    });
}

#[test]
fn a_request_above_its_methods_bound_is_refused_by_name() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let request = proto::issue::v1::JoinAndIssueRequest {
            requests: x509("app", &vec![0; 300 * 1024], None).requests,
            join: None,
        };
        let status = client.join_and_issue(request).await.err().unwrap();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        for part in ["262144 bytes", "tbot.issue.v1.IssueService/JoinAndIssue"] {
            assert!(status.message().contains(part), "{status}");
        }
    });
}

#[test]
fn a_batch_is_charged_with_all_that_it_asks_for() {
    let (_home, issuer) = start("issue_per_second_per_bot: 1, issue_burst_per_bot: 40");
    block_on(async {
        let bot = issuer.joined("app").await;
        let batch = |size: usize| {
            let mut request = x509("app", &[], None);
            request.requests = (0..size)
                .map(|_| {
                    let csr = csr(&KeyPair::generate().unwrap());
                    x509("app", &csr, None).requests.remove(0)
                })
                .collect();
            request
        };
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let granted = client.issue_svids(batch(100)).await.unwrap().into_inner();
        assert_eq!(granted.results.len(), 100);
        // A debt of sixty seconds: whoever waited for the debt to be paid would get one.
        let status = client.issue_svids(batch(1)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    });
}
