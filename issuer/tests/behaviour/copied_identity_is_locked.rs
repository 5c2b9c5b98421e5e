//! Renewal counts generations; an old one presented again locks that instance.

use rcgen::KeyPair;
use tonic::Code;

use super::harness::{Issuer, block_on};

#[test]
fn a_renewal_that_is_repeated_with_its_key_is_no_copy() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let key = KeyPair::generate().unwrap();
        // As if the first answers had been lost.
        for _ in 0..3 {
            let second = issuer.renew(&bot, &key).await.unwrap();
            assert_eq!(second.generation, 2);
            assert_eq!(second.instance_id, bot.certificate.instance_id);
        }
        let second = issuer.renew(&bot, &key).await.unwrap();
        let bot = bot.renewed(key, second);
        let third = issuer
            .renew(&bot, &KeyPair::generate().unwrap())
            .await
            .unwrap();
        assert_eq!(third.generation, 3);
    });
}

#[test]
fn a_copy_locks_its_instance_and_no_other() {
    let issuer = Issuer::start();
    block_on(async {
        let copied = issuer.joined("app").await;
        let other = issuer.join(&issuer.token("app")).await.unwrap();
        let mut news = watch(&issuer, &copied).await;
        news.message().await.unwrap().unwrap();

        issuer
            .renew(&copied, &KeyPair::generate().unwrap())
            .await
            .unwrap();
        let status = issuer
            .renew(&copied, &KeyPair::generate().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(
            issuer.last_event("bot.renew")["fields"]["reason"],
            "copied_identity"
        );
        let lock = issuer.last_event("lock.create");
        assert_eq!(
            lock["fields"]["bot_instance_id"],
            copied.certificate.instance_id.as_str()
        );

        // Everything of that instance is refused, its stream ends.
        assert_eq!(
            news.message().await.err().unwrap().code(),
            Code::PermissionDenied
        );
        let status = issuer.issue(&copied, "app").await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(
            issuer.last_event("spiffe.svid.issued")["fields"]["reason"],
            "locked"
        );

        let refused = watch_refused(&issuer, &copied).await;
        assert_eq!(refused.code(), Code::PermissionDenied);
        let recorded = issuer.last_event("bot.watch");
        assert_eq!(recorded["fields"]["reason"], "locked");
        assert_eq!(recorded["fields"]["bot_name"], "app");

        // The other instance of the same bot goes on.
        issuer.issue(&other, "app").await.unwrap();
        issuer
            .renew(&other, &KeyPair::generate().unwrap())
            .await
            .unwrap();

        let instances = issuer.json(&["bot", "instances", "app"]);
        let locked: Vec<_> = instances
            .as_array()
            .unwrap()
            .iter()
            .filter(|instance| instance["locked_reason"] != "")
            .collect();
        assert_eq!(locked.len(), 1);

        let name = format!("app/{}", copied.certificate.instance_id);
        issuer.run(&["bot", "unlock", &name]);
        issuer.issue(&copied, "app").await.unwrap();
        assert_eq!(
            issuer.last_event("lock.delete")["fields"]["bot_name"],
            "app"
        );
        assert!(
            issuer
                .fails(&["bot", "unlock", &name])
                .contains("no locked instance")
        );
    });
}

async fn watch(
    issuer: &Issuer,
    bot: &super::harness::Bot,
) -> tonic::Streaming<proto::issue::v1::WatchResponse> {
    use proto::issue::v1::{WatchRequest, issue_service_client::IssueServiceClient};
    let mut client = IssueServiceClient::new(issuer.as_bot(bot).await);
    client.watch(WatchRequest {}).await.unwrap().into_inner()
}

async fn watch_refused(issuer: &Issuer, bot: &super::harness::Bot) -> tonic::Status {
    use proto::issue::v1::{WatchRequest, issue_service_client::IssueServiceClient};
    let mut client = IssueServiceClient::new(issuer.as_bot(bot).await);
    client.watch(WatchRequest {}).await.err().unwrap()
}

#[test]
fn a_renewal_that_keeps_its_key_is_refused() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let status = issuer.renew(&bot, &bot.key).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("new key"), "{status}");
        assert_eq!(
            issuer.last_event("bot.renew")["fields"]["reason"],
            "invalid_csr"
        );
    });
}
