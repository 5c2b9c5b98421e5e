//! Records are found by time, event, bot, id, serial number and verdict.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use super::harness::{Issuer, block_on, serial};

fn found(issuer: &Issuer, filter: &[&str]) -> Vec<Value> {
    let base = ["audit", "search", "-o", "json"];
    let text = issuer.run(&[&base, filter].concat());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_record_is_found_by_whatever_is_known_of_it() {
    let issuer = Issuer::start();
    let (first, second) = block_on(async {
        let app = issuer.joined("app").await;
        let web = issuer.joined("web").await;
        let first = issuer.issue(&app, "app").await.unwrap();
        let second = issuer.issue(&web, "web").await.unwrap();
        issuer.issue(&web, "app").await.unwrap_err();
        (first, second)
    });
    let all = found(&issuer, &[]);
    assert_eq!(all, issuer.audit());

    let plain = serial(&first);
    let colons: Vec<_> = plain
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap().to_uppercase())
        .collect();
    for serial in [plain.clone(), colons.join(":")] {
        let one = found(&issuer, &["--serial", &serial]);
        assert_eq!(one.len(), 1, "{serial}");
        assert_eq!(one[0]["fields"]["serial_number"], plain.as_str());
        assert_eq!(one[0]["code"], "TSPIFFE000I");
    }
    let by_id = found(&issuer, &["--id", &second.spiffe_id]);
    assert_eq!(by_id.len(), 1);
    assert_eq!(by_id[0]["fields"]["bot_name"], "web");

    let failed = found(&issuer, &["--failed"]);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["fields"]["reason"], "no_role");
    assert_eq!(failed[0]["code"], "TSPIFFE000E");
    let granted = found(
        &issuer,
        &["--granted", "--event", "spiffe.*", "--bot", "web"],
    );
    assert_eq!(granted.len(), 1, "{granted:?}");

    let names = |filter: &[&str]| -> Vec<String> {
        let found = found(&issuer, filter);
        found
            .iter()
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect()
    };
    let bots = names(&["--event", "bot.*"]);
    assert!(bots.iter().all(|name| name.starts_with("bot.")), "{bots:?}");
    assert_eq!(bots.len(), 4, "{bots:?}");
    let several = names(&["--event", "bot.join", "--event", "role.*"]);
    assert_eq!(
        several.iter().filter(|name| *name == "bot.join").count(),
        2,
        "{several:?}"
    );
    assert_eq!(
        several.iter().filter(|name| *name == "role.create").count(),
        2,
        "{several:?}"
    );
    assert!(names(&["--event", "bot.j"]).is_empty());
    assert!(names(&["--event", "x' OR 1=1 --"]).is_empty());

    assert_eq!(found(&issuer, &["--after", "1h"]), all);
    assert_eq!(found(&issuer, &["--after", "1h", "--limit", "3"]), all[..3]);
    assert!(found(&issuer, &["--before", "1h ago"]).is_empty());
    let middle = all[4]["time"].as_str().unwrap();
    let (before, after) = (
        found(&issuer, &["--before", middle]),
        found(&issuer, &["--after", middle]),
    );
    assert_eq!(before.len() + after.len(), all.len());
    assert!(after.contains(&all[4]) && !before.contains(&all[4]));
    let output = issuer.output(&["audit", "search", "--after", "yesterday"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("how long ago"), "{text}");
}

#[test]
fn followers_see_what_passes_their_filter_as_it_happens() {
    let issuer = Issuer::start();
    let mut follow = issuer
        .command(&[
            "audit", "search", "--follow", "-o", "json", "--event", "bot.*", "--bot", "late",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    issuer.run(&["bot", "add", "early"]);
    issuer.run(&["bot", "add", "late"]);
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(event["event"], "bot.create");
    assert_eq!(event["fields"]["bot_name"], "late");
    follow.kill().unwrap();
    follow.wait().unwrap();
}
