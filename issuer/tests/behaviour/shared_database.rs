//! Issuers that share a PostgreSQL database are one authority: they are founded
//! once, whichever is first, and what one decides holds at the other.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use e2e::Postgres;
use rcgen::KeyPair;
use tonic::Code;

use super::harness::{Issuer, TRUST_DOMAIN, block_on, one_line_failure, serve_command};

/// What a test of this file is found by in what it must not be in.
const PASSWORD: &str = "hunter2-is-no-secret";

fn arguments(url: &str, key_file: &Path) -> Vec<String> {
    let key_file = key_file.to_str().unwrap();
    ["--database", url, "--key-file", key_file]
        .map(str::to_owned)
        .to_vec()
}

/// A key as an operator makes one for all issuers: 32 bytes, in hex.
fn key_file(directory: &Path) -> PathBuf {
    let path = directory.join("kek");
    std::fs::write(&path, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn start(arguments: &[String]) -> Issuer {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Issuer::start_with(&arguments)
}

#[test]
fn two_that_start_at_once_on_an_empty_database_are_one_authority() {
    let postgres = Postgres::start();
    let url = postgres.create_database("issuer");
    let keys = tempfile::tempdir().unwrap();
    let arguments = arguments(&url, &key_file(keys.path()));
    let (one, mut other) = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| start(&arguments)));
        let [one, other] = both.map(|issuer| issuer.join().unwrap());
        (one, other)
    });
    assert_eq!(one.pin, other.pin);
    let bundles = [&one, &other].map(|issuer| issuer.run(&["bundle", "-o", "spiffe"]));
    assert_eq!(bundles[0], bundles[1]);
    let created = one.audit();
    let created: Vec<_> = created
        .iter()
        .filter(|event| event["event"] == "authority.create")
        .filter(|event| event["fields"]["ca_pin"].is_string())
        .collect();
    assert_eq!(created.len(), 1, "{created:?}");

    block_on(async {
        // A token of one is for joining at the other, once.
        one.register("web");
        let token = one.token("web");
        let bot = joined_by_and_by(&other, &token).await;
        one.issue(&bot, "web").await.unwrap();
        other.issue(&bot, "web").await.unwrap();
        let again = one.join(&token).await.err().unwrap();
        assert_eq!(again.code(), Code::Unauthenticated, "{again}");

        // A generation that one has handed out is known to the other.
        let renewed = other
            .renew(&bot, &KeyPair::generate().unwrap())
            .await
            .unwrap();
        assert_eq!(renewed.generation, 2);
        let again = one
            .renew(&bot, &KeyPair::generate().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(again.code(), Code::PermissionDenied, "{again}");

        // One ends without a word; the other goes on from what it wrote last.
        other.kill();
        one.register("api");
        let bot = one.join(&one.token("api")).await.unwrap();
        one.issue(&bot, "api").await.unwrap();
        other.restart();
        other.issue(&bot, "api").await.unwrap();
    });
    let sequences: Vec<_> = one
        .audit()
        .iter()
        .map(|event| event["sequence"].as_u64())
        .collect();
    let gapless: Vec<_> = (1..=sequences.len() as u64).map(Some).collect();
    assert_eq!(sequences, gapless);
}

/// A token is read from the database, so it is known at once; that the bot may join
/// is known a moment later.
async fn joined_by_and_by(issuer: &Issuer, token: &str) -> super::harness::Bot {
    let joining = async {
        loop {
            match issuer.join(token).await {
                Ok(bot) => return bot,
                Err(status) => assert_eq!(status.code(), Code::Unauthenticated, "{status}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), joining)
        .await
        .expect("the other issuer hears of the token")
}

#[test]
fn one_that_has_not_the_key_of_the_keys_does_not_start_and_says_so() {
    let postgres = Postgres::start();
    let url = postgres.create_database("issuer");
    let home = tempfile::tempdir().unwrap();
    let _first = start(&arguments(&url, &home.path().join("kek")));
    let mut second = serve_command(&home.path().join("data"));
    second.args(["--trust-domain", TRUST_DOMAIN, "--database", &url]);
    let line = String::from_utf8(second.output().unwrap().stderr).unwrap();
    let line = line.lines().last().unwrap();
    assert!(line.contains("ca.kek"), "{line}");
    assert!(!home.path().join("data/issuer.db").exists());
}

#[test]
fn the_password_of_the_database_is_shown_nowhere() {
    let postgres = Postgres::start();
    postgres.create_database("issuer");
    let port = postgres.port();
    let url = format!("postgres://app:{PASSWORD}@127.0.0.1:{port}/issuer?sslmode=disable");
    let home = tempfile::tempdir().unwrap();
    // It serves, with everything logged that there is to log.
    let issuer = Issuer::start_with(&["--database", &url, "--log-level", "trace"]);
    issuer.register("web");
    assert!(!issuer.log.text().contains(PASSWORD));

    let wrong = [
        url.replace("issuer?", "absent?"),
        url.replace(&format!(":{port}/"), &format!(":{}/", e2e::free_port())),
        url.replace("sslmode=disable", "sslmode=require"),
        url.replace("sslmode", "sslmod"),
        url.replace("postgres:", "mysql:"),
        url.replace("127.0.0.1", "[::1"),
    ];
    for (number, url) in wrong.iter().enumerate() {
        let mut command = serve_command(&home.path().join(number.to_string()));
        let output = command.env("ISSUER_DATABASE", url).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{url}: {text}");
        assert!(!text.contains(PASSWORD), "{text}");
        assert!(
            text.contains("database") || text.contains("PostgreSQL"),
            "{text}"
        );
    }
    let config = home.path().join("issuer.yaml");
    std::fs::write(&config, format!("database: {}\n", wrong[3])).unwrap();
    let mut command = serve_command(&home.path().join("data"));
    let line = one_line_failure(&command.arg("--config").arg(&config).output().unwrap());
    assert!(
        line.contains("issuer.yaml:1:") && !line.contains(PASSWORD),
        "{line}"
    );

    let mut help = Command::new(env!("CARGO_BIN_EXE_issuer"));
    let help = help.args(["serve", "--help"]).env("ISSUER_DATABASE", &url);
    let help = help.stdout(Stdio::piped()).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("ISSUER_DATABASE") && !help.contains(PASSWORD),
        "{help}"
    );
}
