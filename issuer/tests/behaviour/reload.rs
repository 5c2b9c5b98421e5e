//! SIGHUP: what can change does, what cannot is named, a broken file changes nothing.
//! And `issuer check`, which finds the same mistakes before.

use std::process::Command;

use proto::join::v1::{RenewRequest, join_service_client::JoinServiceClient};
use rcgen::KeyPair;
use tonic::Code;

use super::harness::{Issuer, block_on, csr, signal, time};

struct Reloadable {
    issuer: Issuer,
    file: std::path::PathBuf,
    _home: tempfile::TempDir,
}

impl Reloadable {
    fn start(text: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("issuer.yaml");
        std::fs::write(&file, text).unwrap();
        let issuer = Issuer::start_with(&["--config", file.to_str().unwrap()]);
        Self {
            issuer,
            file,
            _home: home,
        }
    }

    #[track_caller]
    fn reload(&self, text: &str, until: &str) {
        std::fs::write(&self.file, text).unwrap();
        signal("HUP", self.issuer.process.id());
        self.issuer.log.wait_for(until);
    }
}

#[test]
fn a_reload_changes_what_it_can_and_names_the_rest() {
    let reloadable = Reloadable::start("bot_ttl: 1h\nlog_level: info\n");
    let issuer = &reloadable.issuer;
    block_on(async {
        let bot = issuer.joined("app").await;
        reloadable.reload(
            "bot_ttl: 2h\nlog_level: debug\npublic_address: elsewhere:1\nca_ttl: 30d\n\
             jwt_issuer: https://issuer.example.org\n\
             limits: { issue_per_second_per_bot: 1, issue_burst_per_bot: 3 }\n",
            "takes effect at the next start key=\"ca_ttl\"",
        );
        for key in ["public_address", "jwt_issuer"] {
            let line = format!("takes effect at the next start key=\"{key}\"");
            issuer.log.wait_for(&line);
        }
        let mut client = JoinServiceClient::new(issuer.as_bot(&bot).await);
        let request = RenewRequest {
            csr_der: csr(&KeyPair::generate().unwrap()),
            agent: None,
        };
        let renewed = client.renew(request).await.unwrap().into_inner();
        let life = time(renewed.certificate.unwrap().not_after)
            .duration_since(std::time::SystemTime::now())
            .unwrap();
        assert!(life.as_secs() > 3600, "{life:?}");
        // The level: what a refused call says at `debug`.
        let refused = loop {
            if let Err(status) = issuer.issue(&bot, "app").await
                && status.code() == Code::ResourceExhausted
            {
                break status;
            }
        };
        assert!(
            refused
                .message()
                .contains("limits.issue_per_second_per_bot")
        );
        issuer.log.wait_for("DEBUG");
    });
}

#[test]
fn a_broken_file_keeps_the_old_settings_and_says_why() {
    let reloadable = Reloadable::start("log_level: info\n");
    reloadable.reload(
        "log_levle: debug\nbot_ttl: 99d\nlimits: { calls_per_instance: 0 }\n",
        "the old one goes on",
    );
    let log = reloadable.issuer.log.text();
    for part in [
        "issuer.yaml:1:1: unknown key `log_levle`: did you mean `log_level`?",
        "issuer.yaml:2:10: ",
        "issuer.yaml:3:",
    ] {
        assert!(log.contains(part), "no {part:?} in:\n{log}");
    }
    std::fs::remove_file(&reloadable.file).unwrap();
    signal("HUP", reloadable.issuer.process.id());
    reloadable.issuer.log.wait_for("cannot be read");
    // Mended, it loads.
    reloadable.reload("log_level: debug\n", "the configuration is reloaded");
    let url = format!("http://{}/metrics", reloadable.issuer.diagnostics);
    let output = Command::new("curl").args(["-s", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "issuer_config_reloads_total{result=\"failure\"} 2",
        "issuer_config_reloads_total{result=\"success\"} 1",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn without_a_file_a_reload_is_no_end() {
    let mut issuer = Issuer::start();
    signal("HUP", issuer.process.id());
    issuer.log.wait_for("there is no configuration file");
    assert!(issuer.terminate().success());
}

#[test]
fn check_reports_every_mistake_and_touches_nothing() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_issuer"))
            .args(["check", "--config", file.to_str().unwrap()])
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = check("trust_domain: a.example\nlimits: { streams_per_instance: 4 }\n");
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let (code, said) = check("trust_domain: Bad\nlimits: { stream_per_instance: 4 }\nlisten: x\n");
    assert_eq!(code, Some(1));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, part) in lines
        .iter()
        .zip(["yaml:1:15: ", "did you mean", "yaml:3:9: "])
    {
        assert!(
            line.contains("issuer.yaml:") && line.contains(part),
            "{said}"
        );
    }
    // What only shows when all is put together, all of it too.
    let (code, said) = check("admin_uids: [7]\ndiagnostics: 0.0.0.0:1\n");
    assert_eq!(code, Some(1));
    assert_eq!(said.lines().count(), 2, "{said}");
    let flags = Command::new(env!("CARGO_BIN_EXE_issuer"))
        .args(["serve", "--check", "--bot-ttl", "9d"])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert_eq!(flags.status.code(), Some(1));
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
