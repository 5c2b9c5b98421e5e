//! The stream of news: complete state at once, orders to renew as they come, over
//! a restart too.

use std::time::Duration;

use proto::issue::v1::{WatchRequest, WatchResponse, issue_service_client::IssueServiceClient};
use tonic::{Code, Streaming};

use super::harness::{Bot, Issuer, block_on};

async fn watch(issuer: &Issuer, bot: &Bot) -> Streaming<WatchResponse> {
    let mut client = IssueServiceClient::new(issuer.as_bot(bot).await);
    client.watch(WatchRequest {}).await.unwrap().into_inner()
}

#[test]
fn the_first_message_is_complete_and_renewals_are_pushed() {
    let mut issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut news = watch(&issuer, &bot).await;
        let first = news.message().await.unwrap().unwrap();
        assert_eq!(first.trust_bundles.len(), 1);
        assert_eq!(first.trust_bundles[0].trust_domain, "test.example");
        assert_eq!(
            first.trust_bundles[0].spiffe_bundle_json,
            bot.bundle.spiffe_bundle_json
        );
        assert_eq!(first.renew_epoch, 0);

        issuer.run(&["renew-now", "--within", "90s"]);
        let second = news.message().await.unwrap().unwrap();
        assert_eq!(second.renew_epoch, 1);
        assert_eq!(second.renew_within.unwrap().seconds, 90);
        assert_eq!(second.trust_bundles, first.trust_bundles);

        issuer.kill();
        assert!(news.message().await.is_err());
        issuer.restart();
        // Epoch and window are remembered: who has not renewed yet is not told to
        // do so at once, together with all others.
        let again = watch(&issuer, &bot).await.message().await.unwrap().unwrap();
        assert_eq!(again.renew_epoch, 1);
        assert_eq!(again.renew_within.unwrap().seconds, 90);
        assert_eq!(again.trust_bundles, first.trust_bundles);
    });
    assert_eq!(issuer.last_event("renew.order")["fields"]["renew_epoch"], 1);
}

#[test]
fn streams_end_with_unavailable_when_the_issuer_drains() {
    let mut issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut news = watch(&issuer, &bot).await;
        news.message().await.unwrap().unwrap();
        let begun = std::time::Instant::now();
        let process = issuer.process.id();
        super::harness::signal("TERM", process);
        assert_eq!(
            news.message().await.err().unwrap().code(),
            Code::Unavailable
        );
        assert!(issuer.process.wait().unwrap().success());
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}
