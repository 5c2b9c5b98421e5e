//! What an operator gets wrong: one line that names the value and the remedy,
//! exit status 1 (2 for usage), nothing half-written.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use super::harness::{Issuer, one_line_failure, serve_command};

fn serve(data_dir: &Path, more: &[&str]) -> Output {
    // It must end by itself; if it does not, the test must.
    let inner = serve_command(data_dir);
    Command::new("timeout")
        .arg("20")
        .arg(inner.get_program())
        .args(inner.get_args())
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn each_mistake_is_one_line_with_value_and_remedy_and_leaves_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let data = home.path().join("data");
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--trust-domain", "Example.org"],
            &["Example.org", "write a name"],
        ),
        (&["--trust-domain", "a/b"], &["a/b"]),
        (&["--bot-ttl", "2d"], &["2d", "1s to 1d"]),
        (&["--bot-ttl", "soon"], &["soon"]),
        (&["--log-level", "l=o=u=d"], &["l=o=u=d", "debug"]),
        (&["--public-address", "nowhere"], &["nowhere", "host:port"]),
        (
            &["--config", "/nonexistent.yaml"],
            &["/nonexistent.yaml", "--config"],
        ),
        (
            &["--key-file", "/nonexistent/key"],
            &["/nonexistent/key", "--key-file"],
        ),
    ];
    for (arguments, parts) in cases {
        let line = one_line_failure(&serve(&data, arguments));
        for part in *parts {
            assert!(line.contains(part), "{arguments:?}: {line}");
        }
        assert!(
            !data.join("issuer.db").exists(),
            "{arguments:?} left a store"
        );
    }
    let data = home.path().join("never-made");
    for (flag, what) in [("--listen", "listen"), ("--diagnostics", "diagnostics")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_issuer"));
        command.arg("serve").arg("--data-dir").arg(&data);
        for other in ["--listen", "--diagnostics"] {
            let value = if other == flag {
                taken.as_str()
            } else {
                "127.0.0.1:0"
            };
            command.args([other, value]);
        }
        let line = one_line_failure(&command.output().unwrap());
        assert!(line.contains(&taken) && line.contains("in use"), "{line}");
        assert!(line.contains(&format!("--{what}")), "{line}");
        assert!(!data.exists());
        let output = Command::new(env!("CARGO_BIN_EXE_issuer"))
            .args(["serve", flag, "nonsense", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap();
        let line = one_line_failure(&output);
        assert!(
            line.contains("nonsense") && line.contains("ip:port"),
            "{line}"
        );
    }
    for wrong in [file, "/nonexistent/data"] {
        let line = one_line_failure(&serve(Path::new(wrong), &[]));
        assert!(
            line.contains(wrong) && line.contains("--data-dir"),
            "{line}"
        );
    }
    let usage = Command::new(env!("CARGO_BIN_EXE_issuer"))
        .args(["serve", "--lisen"])
        .output();
    assert_eq!(usage.unwrap().status.code(), Some(2));
}

#[test]
fn a_configuration_file_is_read_strictly_and_yields_to_flags() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    std::fs::write(
        &file,
        "trust_domain: Bad.Name\nlissten: 1.2.3.4:1\nbot_ttl: 99d\nadmin_uids: [x]\n",
    )
    .unwrap();
    let output = serve(
        &home.path().join("data"),
        &["--config", file.to_str().unwrap()],
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "issuer.yaml:1:15: ",
        "Bad.Name",
        "issuer.yaml:2:1: ",
        "lissten",
        "issuer.yaml:3:10: ",
        "issuer.yaml:4:14: ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    std::fs::write(&file, "trust_domain: file.example\nbot_ttl: 10m\n").unwrap();
    let file = file.to_str().unwrap();
    let issuer = Issuer::start_with(&["--config", file, "--trust-domain", "flag.example"]);
    assert_eq!(issuer.json(&["status"])["trust_domain"], "flag.example");
}

#[test]
fn the_environment_counts_below_flags() {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args([
            "20",
            env!("CARGO_BIN_EXE_issuer"),
            "serve",
            "--listen",
            "127.0.0.1:0",
        ])
        .env("ISSUER_DATA_DIR", home.path().join("data"))
        .env("ISSUER_LISTEN", "nonsense")
        .env("ISSUER_DIAGNOSTICS", "127.0.0.1:0")
        .env("ISSUER_TRUST_DOMAIN", "NO")
        .output()
        .unwrap();
    let line = one_line_failure(&output);
    assert!(line.contains("\"NO\""), "{line}");
}

#[test]
fn the_trust_domain_of_a_store_is_for_good() {
    let mut issuer = Issuer::start();
    issuer.kill();
    let line = one_line_failure(&serve(
        &issuer.data_dir(),
        &["--trust-domain", "other.example"],
    ));
    assert!(
        line.contains("other.example") && line.contains("test.example"),
        "{line}"
    );
}

#[test]
fn the_default_trust_domain_is_taken_loudly() {
    let issuer = Issuer::start_with(&["--log-format", "json"]);
    assert!(!issuer.log.text().contains("no trust domain was named"));
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["-s", "TERM", "2"])
        .arg(env!("CARGO_BIN_EXE_issuer"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--diagnostics",
            "127.0.0.1:0",
        ])
        .current_dir(home.path())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        log.contains("WARN") && log.contains("no trust domain was named"),
        "{log}"
    );
    assert!(log.contains("example.org"), "{log}");
    let made = home.path().join("issuer-data").metadata().unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o700);
    for file in ["issuer.db", "ca.kek", "issuer.lock"] {
        let mode = home
            .path()
            .join("issuer-data")
            .join(file)
            .metadata()
            .unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_second_issuer_on_the_same_data_is_refused() {
    let issuer = Issuer::start();
    let line = one_line_failure(&serve(&issuer.data_dir(), &[]));
    assert!(line.contains("in use by another issuer"), "{line}");
    assert!(line.contains(&issuer.process.id().to_string()), "{line}");
    issuer.run(&["status"]);
}

#[test]
fn the_key_file_must_be_the_right_one_and_private() {
    let mut issuer = Issuer::start();
    issuer.kill();
    let data = issuer.data_dir();
    let key = data.join("ca.kek");
    let right = std::fs::read(&key).unwrap();
    let put = |bytes: &[u8], mode: u32| {
        std::fs::write(&key, bytes).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (bytes, mode, told) in [
        (
            format!("{}\n", "00".repeat(32)).into_bytes(),
            0o600,
            "does not fit this store",
        ),
        (b"nonsense".to_vec(), 0o600, "does not hold a key"),
        (right.clone(), 0o644, "chmod 600"),
    ] {
        put(&bytes, mode);
        let line = one_line_failure(&serve(&data, &[]));
        assert!(line.contains("ca.kek") && line.contains(told), "{line}");
        assert!(
            !line.contains(String::from_utf8_lossy(&right).trim()),
            "{line}"
        );
    }
    std::fs::remove_file(&key).unwrap();
    let line = one_line_failure(&serve(&data, &[]));
    assert!(
        line.contains("is missing") && line.contains("--key-file"),
        "{line}"
    );
    assert!(!key.exists(), "a new key would lose the CA");
    put(&right, 0o600);
    issuer.restart();
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let home = tempfile::tempdir().unwrap();
    let open = home.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let line = one_line_failure(&serve(&open, &[]));
    assert!(
        line.contains("0755") && line.contains("chmod 700"),
        "{line}"
    );

    let shared = home.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    let line = one_line_failure(&serve(&shared.join("data"), &[]));
    assert!(line.contains("everybody may write"), "{line}");

    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Read-only for a user that is not root.
    let program = home.path().join("issuer");
    std::fs::copy(env!("CARGO_BIN_EXE_issuer"), &program).unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let frozen = home.path().join("frozen");
    std::fs::create_dir(&frozen).unwrap();
    std::os::unix::fs::chown(&frozen, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(&frozen, std::fs::Permissions::from_mode(0o500)).unwrap();
    let inner = serve_command(&frozen);
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "timeout",
            "20",
        ])
        .arg(&program)
        .args(inner.get_args())
        .output()
        .unwrap();
    let line = one_line_failure(&output);
    assert!(
        line.contains("frozen") && line.contains("cannot be written"),
        "{line}"
    );
    assert_eq!(std::fs::read_dir(&frozen).unwrap().count(), 0);
}

#[test]
fn commands_without_an_issuer_say_how_to_reach_one() {
    let home = tempfile::tempdir().unwrap();
    for command in [
        &["status"][..],
        &["audit"],
        &["get", "bot"],
        &["bot", "instances"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_issuer"))
            .args(command)
            .arg("--data-dir")
            .arg(home.path())
            .output()
            .unwrap();
        let line = one_line_failure(&output);
        assert!(
            line.contains("admin.sock") && line.contains("--data-dir"),
            "{line}"
        );
    }
    let issuer = Issuer::start();
    assert!(issuer.fails(&["get", "bots"]).contains("\"bots\""));
    assert!(
        issuer
            .fails(&["get", "bot/none"])
            .contains("issuer get bot")
    );
    assert!(issuer.fails(&["delete", "bot"]).contains("KIND/NAME"));
    assert!(
        issuer
            .fails(&["delete", "bot/none"])
            .contains("there is no bot")
    );
    assert!(issuer.fails(&["bot", "add", "UPPER"]).contains("UPPER"));
    assert!(
        issuer
            .fails(&["bot", "add", "b", "--ttl", "25h"])
            .contains("24h")
    );
    assert!(
        issuer
            .fails(&["apply", "-f", "/nonexistent"])
            .contains("/nonexistent")
    );
}
