//! Secrets that an operator plants in the configuration are told nowhere: not in a log
//! at its finest, an error, a metric, an audit event or a core file.

use std::{os::unix::process::ExitStatusExt, path::Path, process::Command};

use e2e::{Postgres, Process, binary, eventually, free_port, run, run_expecting_failure};

const PASSWORD: &str = "planted-Passw0rd-7f3a9c";

/// With a user and the planted password, which the test's cluster does not ask for.
fn with_password(url: &str) -> String {
    url.replacen("app@", &format!("app:{PASSWORD}@"), 1)
}

fn issuer(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("issuer"));
    command.args(arguments);
    command.arg("--data-dir").arg(home.join("data"));
    command
}

#[test]
fn a_database_password_is_told_nowhere() {
    let mut postgres = Postgres::start();
    let url = with_password(&postgres.create_database("planted"));
    assert!(url.contains(PASSWORD));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    let config = format!("database: \"{url}\"\ntrust_domain: planted.example\n");
    std::fs::write(&file, &config).unwrap();
    let log = home.path().join("issuer.log");
    let diagnostics = format!("127.0.0.1:{}", free_port());
    let process = Process::spawn(
        issuer(home.path(), &["serve", "--log-level", "trace"])
            .args(["--listen", "127.0.0.1:0", "--diagnostics", &diagnostics])
            .arg("--config")
            .arg(&file),
        &log,
    );
    eventually("the issuer answers", || {
        let status = issuer(home.path(), &["status"]).output();
        status.is_ok_and(|output| output.status.success())
    });
    // What goes wrong with the database is told with much care for the reader.
    postgres.crash();
    let failed = run_expecting_failure(&mut issuer(home.path(), &["bot", "add", "late"]));
    let get = |path: &str| {
        let url = format!("http://{diagnostics}{path}");
        run(Command::new("curl").args(["-s", &url]))
    };
    let readyz = get("/readyz");
    assert!(readyz.contains("\"ready\":false"), "{readyz}");
    postgres.restart();
    eventually("the issuer writes again", || {
        let added = issuer(home.path(), &["bot", "add", "late"]).output();
        added.is_ok_and(|output| output.status.success())
    });
    // Another password, and a file that is broken beside it.
    for (text, said) in [
        (config.replace("7f3a9c", "7f3a9c-2"), "is reloaded"),
        (format!("{config}nonsense: 1\n"), "is not reloaded"),
    ] {
        std::fs::write(&file, text).unwrap();
        process.signal(rustix::process::Signal::HUP);
        eventually("the reload is told", || process.log().contains(said));
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let cores = limits.lines().find(|line| line.contains("core file size"));
    let cores: Vec<_> = cores.unwrap().split_whitespace().collect();
    assert_eq!(cores[4..6], ["0", "0"], "{cores:?}");

    let told = [
        ("error", failed.stderr),
        ("readyz", readyz),
        ("metrics", get("/metrics")),
        (
            "audit",
            run(&mut issuer(home.path(), &["audit", "-o", "json"])),
        ),
        (
            "status",
            run(&mut issuer(home.path(), &["status", "-o", "json"])),
        ),
        ("log", process.log()),
    ];
    assert!(told[5].1.contains("TRACE"), "nothing was traced");
    for (what, text) in told {
        assert!(!text.is_empty(), "{what}");
        assert!(
            !text.contains("planted-Passw0rd"),
            "the password is in the {what}"
        );
    }
}

#[test]
fn a_database_address_that_is_refused_is_not_shown() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    for address in [
        // A port that is none, a scheme that is none, an unknown parameter, a password
        // that breaks the address apart.
        format!("postgres://u:{PASSWORD}@host:port/db"),
        format!("mysql://u:{PASSWORD}@host/db"),
        format!("postgres://u@host/db?pasword={PASSWORD}"),
        format!("postgres://u:12/{PASSWORD}@host/db"),
        format!("postgres://u:1?{PASSWORD}@host/db"),
        format!("postgres://u:1#{PASSWORD}@host/db"),
    ] {
        std::fs::write(&file, format!("database: \"{address}\"\n")).unwrap();
        let mut check = Command::new(binary("issuer"));
        let failed = run_expecting_failure(check.arg("check").arg("--config").arg(&file));
        assert_eq!(failed.code, Some(1), "{address}");
        assert!(
            failed.stderr.contains("issuer.yaml:1:"),
            "{}",
            failed.stderr
        );
        assert!(!failed.stderr.contains("Passw0rd"), "{}", failed.stderr);
        let mut serve = issuer(home.path(), &["serve", "--database", &address]);
        let failed = run_expecting_failure(&mut serve);
        assert!(!failed.stderr.contains("Passw0rd"), "{}", failed.stderr);
    }
}

#[test]
fn a_process_that_is_aborted_leaves_no_core() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new("prlimit")
        .arg("--core=unlimited")
        .arg(binary("issuer"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--diagnostics",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .current_dir(home.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the issuer answers", || {
        let status = issuer(home.path(), &["status"]).output();
        status.is_ok_and(|output| output.status.success())
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6), "{status}");
    assert!(!status.core_dumped(), "{status}");
}
