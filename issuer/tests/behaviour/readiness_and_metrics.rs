//! What probes and scrapers see: readiness by check with reasons, and metrics that
//! `promtool` accepts, each in the table of the reference.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use issuer::metrics::{METRICS, Type};
use rcgen::KeyPair;
use serde_json::Value;

use super::harness::{Issuer, block_on};

/// Status and body of a GET on the diagnostics port.
fn get(issuer: &Issuer, path: &str) -> (u16, String) {
    let url = format!("http://{}{path}", issuer.diagnostics);
    let output = Command::new("curl")
        .args(["-s", "-w", "\n%{http_code}", &url])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

fn json(issuer: &Issuer, path: &str) -> (u16, Value) {
    let (code, body) = get(issuer, path);
    (code, serde_json::from_str(&body).unwrap())
}

#[test]
fn each_check_is_told_by_name_and_a_failing_one_says_why() {
    let issuer = Issuer::start();
    let (code, told) = json(&issuer, "/readyz");
    assert_eq!((code, &told["ready"]), (200, &Value::Bool(true)), "{told}");
    let checks: Vec<_> = told["checks"].as_object().unwrap().keys().collect();
    for name in ["authority", "drain", "identity", "store"] {
        assert!(checks.contains(&&name.to_owned()), "{checks:?}");
        assert_eq!(json(&issuer, &format!("/readyz/{name}")).0, 200);
    }
    let (code, text) = get(&issuer, "/readyz/nothing");
    assert_eq!(code, 404);
    assert!(text.contains("store"), "{text}");
    assert_eq!(get(&issuer, "/livez"), (200, "ok\n".to_owned()));

    // A full disk, for this process.
    let process = issuer.process.id().to_string();
    let limited = Command::new("prlimit")
        .args(["--pid", &process, "--fsize=0:"])
        .status();
    assert!(limited.unwrap().success());
    issuer.output(&["bot", "add", "late"]);
    let (code, told) = json(&issuer, "/readyz/store");
    assert_eq!((code, &told["ready"]), (503, &Value::Bool(false)), "{told}");
    assert!(!told["reasons"].as_array().unwrap().is_empty(), "{told}");
    assert_eq!(json(&issuer, "/readyz").0, 503);
    assert_eq!(json(&issuer, "/readyz/drain").0, 200);
    assert_eq!(get(&issuer, "/livez").0, 200);
    let metrics = get(&issuer, "/metrics").1;
    assert!(
        metrics.contains("issuer_ready{check=\"store\"} 0"),
        "{metrics}"
    );
    assert!(
        metrics.contains("issuer_ready{check=\"drain\"} 1"),
        "{metrics}"
    );
}

/// Name and kind of each metric that is served.
fn served(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            (name.to_owned(), kind.to_owned())
        })
        .collect()
}

#[test]
fn metrics_are_those_of_the_table_and_promtool_accepts_them() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
        issuer.issue(&bot, "other").await.unwrap_err();
        let key = KeyPair::generate().unwrap();
        issuer.renew(&bot, &key).await.unwrap();
        issuer.join("wrong").await.err().unwrap();
    });
    let (code, text) = get(&issuer, "/metrics");
    assert_eq!(code, 200);
    let known: BTreeSet<_> = METRICS
        .iter()
        .map(|metric| (metric.name.to_owned(), metric.r#type.as_str().to_owned()))
        .collect();
    let served = served(&text);
    let unknown: Vec<_> = served.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "not in issuer::metrics::METRICS: {unknown:?}"
    );
    // What this scenario makes happen is there; the rest has not happened.
    for metric in METRICS {
        let name = metric.name;
        let expected = metric.labels.is_empty() && !matches!(metric.r#type, Type::Histogram(_));
        if expected {
            let is_there = served.iter().any(|(served, _)| served == name);
            assert!(is_there, "{name} is not served:\n{text}");
        }
    }
    for part in [
        "issuer_issuances_total{type=\"x509\",result=\"granted\"} 1",
        "issuer_joins_total{result=\"unknown_token\"} 1",
        "issuer_requests_total{method=\"tbot.join.v1.JoinService/Join\",code=\"UNAUTHENTICATED\"} 1",
        "issuer_requests_total{method=\"tbot.join.v1.JoinService/Renew\",code=\"OK\"} 1",
        "issuer_sign_duration_seconds_count",
        "issuer_store_queue_depth 0",
        "issuer_connections ",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    for expiry in ["issuer_ca_expiry", "issuer_identity_expiry"] {
        let line = format!("{expiry}_timestamp_seconds ");
        let line = text.lines().find(|text| text.starts_with(&line)).unwrap();
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 1.7e9, "{line}");
    }
    // Calls by metrics of every series are few: no caller can add one.
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: `make test` installs Debian's prometheus");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn an_unknown_method_adds_no_series() {
    let issuer = Issuer::start();
    block_on(async {
        let mut grpc = tonic::client::Grpc::new(issuer.anonymous().await);
        for number in 0..3 {
            grpc.ready().await.unwrap();
            let path = format!("/made.up.Service/Method{number}");
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let status = grpc
                .unary(tonic::Request::new(()), path.parse().unwrap(), codec)
                .await
                .unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unimplemented);
        }
    });
    let (_, text) = get(&issuer, "/metrics");
    let line = "issuer_requests_total{method=\"other\",code=\"UNIMPLEMENTED\"} 3";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("made.up"), "{text}");
}
