//! `audit.required: false`: SVIDs are given while the store cannot record them, and
//! nothing else is; log, sinks, metrics and probes are loud about it.

use std::process::{Command, Stdio};

use rcgen::KeyPair;
use serde_json::Value;
use tonic::Code;

use super::harness::{Issuer, block_on, serial, serve_command};

fn limit_file_size(issuer: &Issuer, limit: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &issuer.process.id().to_string()])
        .arg(format!("--fsize={limit}:"))
        .status();
    assert!(status.unwrap().success());
}

fn diagnostics(issuer: &Issuer, path: &str) -> String {
    let url = format!("http://{}{path}", issuer.diagnostics);
    let output = Command::new("curl").args(["-s", &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn svids_and_nothing_else_are_given_without_a_record_and_everybody_is_told() {
    let issuer = Issuer::start_with(&["--audit-best-effort", "--log-format", "json"]);
    issuer.log.wait_for("audit.required is false");
    let ready: Value = serde_json::from_str(&diagnostics(&issuer, "/readyz")).unwrap();
    let warnings = ready["warnings"].to_string();
    assert_eq!(ready["ready"], true, "{ready}");
    assert!(warnings.contains("audit.required is false"), "{warnings}");
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
        let unused = issuer.token("app");
        let before = issuer.audit().len();

        limit_file_size(&issuer, "0");
        let given = serial(&issuer.issue(&bot, "app").await.unwrap());
        // A refusal is still one, and told as well.
        let refused = issuer.issue(&bot, "unknown").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let renewal = issuer.renew(&bot, &KeyPair::generate().unwrap()).await;
        assert_eq!(renewal.err().unwrap().code(), Code::Unavailable);
        let join = issuer.join(&unused).await;
        assert_eq!(join.err().unwrap().code(), Code::Unavailable);
        assert!(
            issuer
                .fails(&["bot", "add", "late"])
                .contains("unavailable")
        );

        let log = issuer.log.text();
        let told: Vec<_> = log
            .lines()
            .filter(|line| line.contains("not_durable"))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains(&given), "{told:?}");
        assert!(told[1].contains("unknown_workload_identity"), "{told:?}");
        let metrics = diagnostics(&issuer, "/metrics");
        assert!(
            metrics.contains("issuer_audit_not_durable_total 2"),
            "{metrics}"
        );
        assert!(metrics.contains("issuer_audit_best_effort 1"), "{metrics}");

        limit_file_size(&issuer, "unlimited");
        issuer.issue(&bot, "app").await.unwrap();
        // The trail itself has no gap, and no trace of what it could not hold.
        let events = issuer.audit();
        assert_eq!(events.len(), before + 1);
        assert!(
            events
                .iter()
                .all(|event| { event["fields"]["serial_number"] != given.as_str() })
        );
        issuer.run(&["audit", "verify"]);
    });
}

#[test]
fn sinks_have_what_the_trail_has_not_and_it_is_marked() {
    // A pipe: a limit on file sizes leaves it alone.
    let issuer = Issuer::start_with(&["--audit-best-effort", "--audit-stdout"]);
    let bot = block_on(issuer.joined("app"));
    limit_file_size(&issuer, "0");
    let given = serial(&block_on(issuer.issue(&bot, "app")).unwrap());
    issuer.stdout.wait_for("not_durable");
    let text = issuer.stdout.text();
    let line = text
        .lines()
        .find(|line| line.contains("not_durable"))
        .unwrap();
    let told: Value = serde_json::from_str(line).unwrap();
    assert_eq!(told["not_durable"], true);
    assert_eq!(told["code"], "TSPIFFE000I");
    assert_eq!(told["fields"]["serial_number"], given.as_str());
    assert!(told.get("hash").is_none() && told.get("sequence").is_none());
}

#[test]
fn it_is_refused_on_a_database_that_issuers_share() {
    let home = tempfile::tempdir().unwrap();
    let output = serve_command(&home.path().join("data"))
        .args([
            "--audit-best-effort",
            "--database",
            "postgres://u@127.0.0.1:1/x",
        ])
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("that issuers share"), "{text}");
}
