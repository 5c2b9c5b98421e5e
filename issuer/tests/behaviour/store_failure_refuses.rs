//! A store that cannot write: nothing is issued, the answer says so, readiness
//! says so; when it can write again, so can the issuer.

use std::process::Command;

use rcgen::KeyPair;
use tonic::Code;

use super::{
    audit_sinks::until,
    harness::{Issuer, block_on},
};

/// Sets how large a file the process may write: a full disk, for this process.
fn limit_file_size(pid: u32, limit: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={limit}:")])
        .status();
    assert!(status.unwrap().success());
}

fn ready(issuer: &Issuer) -> (bool, String) {
    let url = format!("http://{}/readyz", issuer.diagnostics);
    let output = Command::new("curl")
        .args(["-s", "-w", "%{http_code}", &url])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    (text.ends_with("200"), text)
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
        let before = issuer.audit().len();
        assert!(ready(&issuer).0);

        limit_file_size(issuer.process.id(), "0");
        let status = issuer.issue(&bot, "app").await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        let status = issuer
            .renew(&bot, &KeyPair::generate().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        let line = issuer.fails(&["bot", "add", "late"]);
        assert!(line.contains("unavailable"), "{line}");
        let (is_ready, text) = ready(&issuer);
        assert!(!is_ready && text.contains("unavailable"), "{text}");

        limit_file_size(issuer.process.id(), "unlimited");
        // Who follows readiness sends nothing until it says so.
        until("the issuer is ready again", || ready(&issuer).0);
        issuer.issue(&bot, "app").await.unwrap();
        let events = issuer.audit();
        assert_eq!(events.len(), before + 1);
        assert_eq!(events.last().unwrap()["sequence"], before + 1);
        // The renewal that failed left no generation behind.
        let renewed = issuer
            .renew(&bot, &KeyPair::generate().unwrap())
            .await
            .unwrap();
        assert_eq!(renewed.generation, 2);
    });
}
