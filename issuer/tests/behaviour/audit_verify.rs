//! Somebody who can write the database changes it behind the issuer's back:
//! `issuer audit verify` finds it and names the first bad record. Online, on the
//! database file, on an export, and by a checkpoint that was kept elsewhere.

use std::{path::PathBuf, str::FromStr};

use serde_json::Value;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::harness::{Issuer, block_on, one_line_failure};

fn database(issuer: &Issuer) -> PathBuf {
    issuer.data_dir().join("issuer.db")
}

/// Runs SQL as whoever can write the file, while the issuer is stopped.
fn tamper(path: &std::path::Path, sql: &[&str]) {
    block_on(async {
        let url = format!("sqlite://{}", path.display());
        let options = SqliteConnectOptions::from_str(&url).unwrap();
        let mut connection = options.connect().await.unwrap();
        for sql in sql {
            sqlx::raw_sql(sqlx::AssertSqlSafe(*sql))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
    });
}

/// A stopped issuer with some twenty records.
fn stopped() -> Issuer {
    let mut issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        for _ in 0..8 {
            issuer.issue(&bot, "app").await.unwrap();
        }
    });
    assert!(issuer.terminate().success());
    issuer
}

fn offline(issuer: &Issuer, more: &[&str]) -> std::process::Output {
    let database = database(issuer);
    let base = ["audit", "verify", "--offline", database.to_str().unwrap()];
    issuer.output(&[&base, more].concat())
}

#[test]
fn an_untouched_trail_is_verified_online_and_offline() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
    });
    let records = issuer.audit().len();
    let text = issuer.run(&["audit", "verify"]);
    assert!(
        text.contains(&format!("records 1 to {records} are as they were recorded")),
        "{text}"
    );
    assert!(
        text.contains(&format!("signed up to record {records}")),
        "{text}"
    );
    // The issuer runs: what is not in the file yet is read from the log beside it.
    let output = offline(&issuer, &["-o", "json"]);
    assert!(output.status.success(), "{output:?}");
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["last"], records, "{outcome}");
    assert_eq!(outcome["signed_to"], records, "{outcome}");

    let part = issuer.json(&["audit", "verify", "--from", "3", "--to", "5"]);
    assert_eq!(
        (part["first"].as_u64(), part["last"].as_u64()),
        (Some(3), Some(5))
    );
    let line = issuer.fails(&["audit", "verify", "--to", "100000"]);
    assert!(line.contains("records, not 100000"), "{line}");
}

#[test]
fn whatever_is_done_to_the_database_is_found_and_named() {
    let issuer = stopped();
    let pristine = std::fs::read(database(&issuer)).unwrap();
    let (_, whole) = issuer_records(&issuer);
    assert!(whole > 12, "{whole}");
    let cut = format!("DELETE FROM audit_events WHERE sequence > {}", whole - 3);
    let cut_named = format!("records {} to {whole} are missing", whole - 2);
    let append = format!(
        "INSERT INTO audit_events SELECT {}, time, event, success, bot_name, spiffe_id, fields, serial, hash \
         FROM audit_events WHERE sequence = 7",
        whole + 1
    );
    let append_named = format!("record {} ", whole + 1);
    let cases: [(&str, &[&str], &str); 12] = [
        (
            "a field",
            &["UPDATE audit_events SET fields = replace(fields, 'app', 'apq') WHERE sequence = 7"],
            "record 7 is not what was recorded",
        ),
        (
            "the verdict",
            &["UPDATE audit_events SET success = 1 - success WHERE sequence = 7"],
            "record 7 is not what was recorded",
        ),
        (
            "the time",
            &["UPDATE audit_events SET time = time + 1 WHERE sequence = 7"],
            "record 7 is not what was recorded",
        ),
        (
            "the name",
            &["UPDATE audit_events SET event = 'bot.watch' WHERE sequence = 7"],
            "record 7 is not what was recorded",
        ),
        (
            "one removed",
            &["DELETE FROM audit_events WHERE sequence = 7"],
            "record 7 is missing",
        ),
        (
            "one removed, the rest moved up",
            &[
                "DELETE FROM audit_events WHERE sequence = 7",
                "UPDATE audit_events SET sequence = -sequence WHERE sequence > 7",
                "UPDATE audit_events SET sequence = -sequence - 1 WHERE sequence < 0",
            ],
            "record 7 is not what was recorded",
        ),
        (
            "two swapped",
            &[
                "UPDATE audit_events SET sequence = -7 WHERE sequence = 7",
                "UPDATE audit_events SET sequence = 7 WHERE sequence = 8",
                "UPDATE audit_events SET sequence = 8 WHERE sequence = -7",
            ],
            "record 7 is not what was recorded",
        ),
        (
            "one inserted",
            &[
                "UPDATE audit_events SET sequence = -sequence WHERE sequence > 7",
                "UPDATE audit_events SET sequence = -sequence + 1 WHERE sequence < 0",
                "INSERT INTO audit_events SELECT 8, time, event, success, bot_name, spiffe_id, fields, serial, hash \
                 FROM audit_events WHERE sequence = 7",
            ],
            "record 8 is not what was recorded",
        ),
        ("the tail cut off", &[&cut], &cut_named),
        ("one appended", &[&append], &append_named),
        (
            "hidden from searches",
            &[
                "UPDATE audit_events SET bot_name = '' WHERE sequence = (SELECT max(sequence) FROM audit_events)",
            ],
            "is hidden from searches",
        ),
        (
            "the head's signature",
            &["UPDATE head SET signature = zeroblob(64)"],
            "its signature is not by the audit key",
        ),
    ];
    for (name, sql, named) in cases {
        std::fs::write(database(&issuer), &pristine).unwrap();
        tamper(&database(&issuer), sql);
        let line = one_line_failure(&offline(&issuer, &[]));
        assert!(line.contains(named), "{name}: {line}");
    }
    // The check itself finds nothing where nothing is.
    std::fs::write(database(&issuer), &pristine).unwrap();
    assert!(offline(&issuer, &[]).status.success());
}

fn issuer_records(issuer: &Issuer) -> (u64, u64) {
    let output = offline(issuer, &["-o", "json"]);
    assert!(output.status.success(), "{output:?}");
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    (
        outcome["first"].as_u64().unwrap(),
        outcome["last"].as_u64().unwrap(),
    )
}

#[test]
fn a_running_issuer_is_verified_too() {
    let mut issuer = stopped();
    let sql = "UPDATE audit_events SET success = 1 - success WHERE sequence = 9";
    tamper(&database(&issuer), &[sql]);
    issuer.restart();
    let line = issuer.fails(&["audit", "verify"]);
    assert!(line.contains("record 9 is not what was recorded"), "{line}");
    let part = issuer.json(&["audit", "verify", "--from", "10"]);
    assert_eq!(part["first"], 10, "{part}");
    assert!(
        part["notes"][0]
            .as_str()
            .unwrap()
            .contains("before record 10"),
        "{part}"
    );
}

#[test]
fn a_store_put_back_as_a_whole_is_found_by_a_checkpoint_kept_elsewhere() {
    let mut issuer = stopped();
    let older = std::fs::read(database(&issuer)).unwrap();
    issuer.restart();
    issuer.run(&["bot", "add", "later"]);
    let kept = issuer.home.path().join("kept.jsonl");
    std::fs::write(&kept, issuer.run(&["audit", "checkpoint"])).unwrap();
    let kept = kept.to_str().unwrap().to_owned();
    issuer.run(&[
        "audit",
        "verify",
        "--checkpoint",
        &kept,
        "--public-key",
        &kept,
    ]);
    assert!(issuer.terminate().success());

    // Whoever did this leaves a trail that fits in itself.
    std::fs::write(database(&issuer), &older).unwrap();
    assert!(offline(&issuer, &[]).status.success());
    let line = one_line_failure(&offline(&issuer, &["--checkpoint", &kept]));
    assert!(line.contains("are missing"), "{line}");

    // Grown to the same length again, with other records.
    issuer.restart();
    for number in 0..4 {
        issuer.run(&["bot", "add", &format!("other-{number}")]);
    }
    issuer.run(&["audit", "verify"]);
    let line = issuer.fails(&["audit", "verify", "--checkpoint", &kept]);
    assert!(line.contains("the chain was made anew"), "{line}");
}

#[test]
fn an_export_is_verified_elsewhere() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        for _ in 0..4 {
            issuer.issue(&bot, "app").await.unwrap();
        }
    });
    let records = issuer.audit().len();
    let file = issuer.home.path().join("export.jsonl");
    let path = file.to_str().unwrap();
    issuer.run(&["audit", "export", "-o", path]);
    let line = issuer.fails(&["audit", "export", "-o", path]);
    assert!(line.contains("not there yet"), "{line}");
    let verify = |path: &str| issuer.output(&["audit", "verify", "-o", "json", "--offline", path]);
    let output = verify(path);
    assert!(output.status.success(), "{output:?}");
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["last"], records);
    assert_eq!(outcome["signed_to"], records, "{outcome}");

    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let at = |sequence: usize| {
        let begin = format!("{{\"sequence\":{sequence},");
        lines
            .iter()
            .position(|line| line.starts_with(&begin))
            .unwrap()
    };
    let mut swapped = lines.clone();
    swapped.swap(at(5), at(6));
    let mut removed = lines.clone();
    removed.remove(at(5));
    let changed = text.replacen("\"success\":true", "\"success\":false", 1);
    for (tampered, named) in [
        (changed, "record 1 is not what was recorded".to_owned()),
        (
            swapped.join("\n"),
            "record 5 is missing: the next one is 6".to_owned(),
        ),
        (
            removed.join("\n"),
            "record 5 is missing: the next one is 6".to_owned(),
        ),
        (
            lines[..lines.len() - 2].join("\n") + "\n" + lines[lines.len() - 1],
            format!("record {records} is missing"),
        ),
    ] {
        std::fs::write(&file, tampered).unwrap();
        let line = one_line_failure(&verify(path));
        assert!(line.contains(&named), "{named}: {line}");
    }

    // What no hash covers is not believed either.
    let forged = text.replacen("\"code\":\"TBI030I\"", "\"code\":\"TBI030E\"", 1);
    assert_ne!(forged, text);
    std::fs::write(&file, forged).unwrap();
    let line = one_line_failure(&verify(path));
    assert!(line.contains("TBI030E"), "{line}");

    // A part says where it begins, and still fits.
    let part = issuer.home.path().join("part.jsonl");
    let part = part.to_str().unwrap();
    issuer.run(&["audit", "export", "--from", "4", "-o", part]);
    let outcome: Value = serde_json::from_slice(&verify(part).stdout).unwrap();
    assert_eq!(
        (outcome["first"].as_u64(), outcome["last"].as_u64()),
        (Some(4), Some(records as u64))
    );
    let all = issuer.run(&["audit", "export", "--after", "1h"]);
    assert_eq!(
        all.lines()
            .filter(|line| line.starts_with("{\"sequence\""))
            .count(),
        records
    );
    let none = issuer.run(&["audit", "export", "--after", "2100-01-01T00:00:00Z"]);
    assert!(!none.contains("{\"sequence\""), "{none}");
}
