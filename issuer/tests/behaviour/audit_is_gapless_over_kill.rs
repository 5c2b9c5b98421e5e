//! `kill -9` at random moments: no certificate that left has no event, and the
//! events are numbered without a gap.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::issue::v1::issue_service_client::IssueServiceClient;
use rcgen::KeyPair;
use tokio::sync::Notify;

use super::harness::{Issuer, block_on, csr, serial, the_svid, x509};

#[test]
fn every_certificate_that_left_is_recorded_whenever_the_issuer_is_killed() {
    let mut issuer = Issuer::start();
    let mut seen = HashSet::new();
    let bot = block_on(issuer.joined("app"));
    for round in 0..5 {
        let answered = block_on(async {
            let request = x509("app", &csr(&KeyPair::generate().unwrap()), None);
            let channel = issuer.as_bot(&bot).await;
            let under_load = Notify::new();
            let load = futures_util::future::join_all((0..16).map(|_| {
                let mut client = IssueServiceClient::new(channel.clone());
                let request = request.clone();
                let under_load = &under_load;
                async move {
                    let mut serials = Vec::new();
                    while let Ok(grant) = the_svid(client.issue_svids(request.clone()).await) {
                        under_load.notify_one();
                        serials.push(serial(&grant));
                    }
                    serials
                }
            }));
            // A moment that no run can foresee.
            let random = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .subsec_nanos();
            let moment = Duration::from_millis(u64::from(random % 400));
            let pid = issuer.process.id();
            let (answered, ()) = futures_util::future::join(load, async {
                // However long a busy machine takes for the first answer.
                let first = tokio::time::timeout(Duration::from_secs(60), under_load.notified());
                let _ = first.await;
                tokio::time::sleep(moment).await;
                super::harness::signal("KILL", pid);
            })
            .await;
            answered.into_iter().flatten().collect::<Vec<_>>()
        });
        assert!(
            !answered.is_empty(),
            "round {round} issued nothing before the kill"
        );
        seen.extend(answered);
        issuer.process.wait().unwrap();
        issuer.restart();
    }
    let events = issuer.audit();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["sequence"], index + 1, "a gap in the audit log");
    }
    let recorded: HashSet<_> = events
        .iter()
        .filter(|event| event["event"] == "spiffe.svid.issued" && event["success"] == true)
        .map(|event| event["fields"]["serial_number"].as_str().unwrap())
        .collect();
    for serial in &seen {
        assert!(
            recorded.contains(serial.as_str()),
            "{serial} left and is not recorded"
        );
    }
    println!(
        "{} certificates over 5 kills, {} events",
        seen.len(),
        events.len()
    );
}

#[test]
fn the_log_is_filtered_followed_and_bounded() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let issuer = Issuer::start();
    let bot = block_on(issuer.joined("app"));
    block_on(issuer.issue(&bot, "app")).unwrap();
    let all = issuer.audit();
    let first = issuer.run(&["audit", "-o", "json", "--limit", "2"]);
    assert_eq!(first.lines().count(), 2);
    let later = issuer.run(&["audit", "-o", "json", "--from", "3"]);
    assert_eq!(later.lines().count(), all.len() - 2);
    let id = issuer.run(&["audit", "--id", "spiffe://test.example/app"]);
    assert_eq!(id.lines().count(), 1, "{id}");
    let joins = issuer.run(&["audit", "--event", "bot.join", "--bot", "app"]);
    assert_eq!(joins.lines().count(), 1, "{joins}");

    let mut follow = issuer
        .command(&["audit", "--follow", "-o", "json", "--event", "bot.create"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"app\""));
    issuer.run(&["bot", "add", "later"]);
    assert!(lines.next().unwrap().unwrap().contains("\"later\""));
    follow.kill().unwrap();
    follow.wait().unwrap();
}
