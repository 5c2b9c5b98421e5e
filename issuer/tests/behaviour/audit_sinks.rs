//! Sinks have every record, in order, over rotation, deletion, a full disk, `kill -9`
//! and a reader that does not read; and nobody waits for them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use e2e::Postgres;
use proto::issue::v1::issue_service_client::IssueServiceClient;
use rcgen::KeyPair;
use serde_json::Value;
use tempfile::TempDir;

use super::harness::{Bot, Issuer, block_on, csr, serve_command, signal, the_svid, x509};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A configuration with a small rotated file of audit records.
struct Sink {
    folder: TempDir,
}

impl Sink {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yaml = format!(
            "audit:\n  file: {{ path: {}, max_size: 32KiB, keep: 1000 }}\n",
            folder.path().join("sink/audit.jsonl").display()
        );
        fs::write(folder.path().join("issuer.yaml"), yaml).unwrap();
        Self { folder }
    }

    fn with_directory() -> Self {
        let sink = Self::new();
        sink.make_directory();
        sink
    }

    fn make_directory(&self) {
        fs::create_dir(self.folder.path().join("sink")).unwrap();
    }

    fn config(&self) -> String {
        self.folder.path().join("issuer.yaml").display().to_string()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sink/audit.jsonl")
    }

    /// The files, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("sink")) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort_by_key(|path| {
            let number = path.extension().and_then(|end| end.to_str()?.parse().ok());
            std::cmp::Reverse(number.unwrap_or(0_u64))
        });
        files
    }

    /// The numbers of the records in them.
    fn numbers(&self) -> Vec<u64> {
        let texts = self.files().into_iter().map(|file| {
            // It may be rotated in this moment.
            fs::read_to_string(file).unwrap_or_default()
        });
        texts.flat_map(|text| numbers(&text)).collect()
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines()
        .filter(|line| !line.is_empty())
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["sequence"].as_u64()
        })
        .collect()
}

fn diagnostics(issuer: &Issuer, path: &str) -> String {
    fetch(&issuer.diagnostics.to_string(), path)
}

fn fetch(address: &str, path: &str) -> String {
    let url = format!("http://{address}{path}");
    let output = Command::new("curl").args(["-s", &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn warnings(issuer: &Issuer) -> String {
    let ready: Value = serde_json::from_str(&diagnostics(issuer, "/readyz")).unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    ready["warnings"].to_string()
}

/// The value of a metric of this sink.
fn metric(issuer: &Issuer, name: &str, sink: &str) -> f64 {
    let begin = format!("{name}{{sink=\"{sink}\"}} ");
    let text = diagnostics(issuer, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap_or_else(|| panic!("no {begin}in:\n{text}"))
        .parse()
        .unwrap()
}

/// Asks for SVIDs until the issuer is gone or enough were given.
async fn load(issuer: &Issuer, bot: &Bot, enough: usize) {
    let channel = issuer.as_bot(bot).await;
    let request = x509("app", &csr(&KeyPair::generate().unwrap()), None);
    let callers = (0..8).map(|_| {
        let mut client = IssueServiceClient::new(channel.clone());
        let request = request.clone();
        async move {
            for _ in 0..enough / 8 {
                if the_svid(client.issue_svids(request.clone()).await).is_err() {
                    break;
                }
            }
        }
    });
    futures_util::future::join_all(callers).await;
}

#[test]
fn a_file_has_every_record_once_over_rotation_under_load_and_kills() {
    let sink = Sink::with_directory();
    let mut issuer = Issuer::start_with(&["--config", &sink.config()]);
    let bot = block_on(issuer.joined("app"));
    for _ in 0..3 {
        block_on(async {
            let pid = issuer.process.id();
            let killer = async {
                let begun = sink.files().len();
                let rotated = || sink.files().len() > begun + 1;
                let waited = Instant::now();
                while !rotated() && waited.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                signal("KILL", pid);
            };
            futures_util::future::join(load(&issuer, &bot, 100_000), killer).await;
        });
        issuer.process.wait().unwrap();
        issuer.restart();
    }
    block_on(load(&issuer, &bot, 200));
    let records = issuer.audit().len() as u64;
    // A stop waits for a sink a few seconds only, and this disk may be slow.
    until("the sink has caught up", || {
        sink.numbers().len() as u64 >= records
    });
    assert!(issuer.terminate().success());
    assert_eq!(sink.numbers(), (1..=records).collect::<Vec<_>>());
    let files = sink.files();
    assert!(files.len() > 6, "{files:?}");
    for file in &files {
        use std::os::unix::fs::PermissionsExt;
        let found = fs::metadata(file).unwrap();
        assert!(found.len() <= 32 * 1024, "{file:?}");
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let mut verify = vec!["audit", "verify", "-o", "json"];
    files
        .iter()
        .for_each(|file| verify.extend(["--offline", file]));
    let outcome: Value = serde_json::from_str(&issuer.run(&verify)).unwrap();
    assert_eq!(outcome["last"], records, "{outcome}");
    assert_eq!(outcome["repeated"], 0, "{outcome}");
}

#[test]
fn a_sink_that_cannot_write_warns_holds_up_nobody_and_catches_up() {
    let sink = Sink::new();
    let issuer = Issuer::start_with(&["--config", &sink.config()]);
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
    });
    issuer.log.wait_for("an audit sink is behind");
    assert!(warnings(&issuer).contains("audit.jsonl"));
    let records = issuer.audit().len() as u64;
    until("the lag is told", || {
        metric(&issuer, "issuer_audit_sink_lag_events", "file") == records as f64
    });
    assert_eq!(metric(&issuer, "issuer_audit_sink_up", "file"), 0.0);
    sink.make_directory();
    issuer.log.wait_for("an audit sink works again");
    until("everything arrived", || {
        sink.numbers().len() as u64 == records
    });
    until("the warning goes", || warnings(&issuer) == "[]");
    assert_eq!(metric(&issuer, "issuer_audit_sink_lag_events", "file"), 0.0);
    assert_eq!(metric(&issuer, "issuer_audit_sink_up", "file"), 1.0);
    assert_eq!(sink.numbers(), (1..=records).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_of_the_sink_is_loud_and_leaves_no_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    // Larger than the store will be: so a limit on file sizes hits the sink alone.
    fs::write(&path, vec![b'\n'; 32 << 20]).unwrap();
    let issuer = Issuer::start_with(&["--audit-file", path.to_str().unwrap()]);
    let written = || numbers(fs::read_to_string(&path).unwrap().trim_start());
    let limit = |limit: &str| {
        let status = Command::new("prlimit")
            .args([
                "--pid",
                &issuer.process.id().to_string(),
                &format!("--fsize={limit}:"),
            ])
            .status();
        assert!(status.unwrap().success());
    };
    let bot = block_on(issuer.joined("app"));
    let records = issuer.audit().len() as u64;
    until("the sink follows", || written().len() as u64 == records);
    limit(&((32 << 20) + 10_000).to_string());
    for _ in 0..30 {
        block_on(issuer.issue(&bot, "app")).unwrap();
    }
    issuer.log.wait_for("an audit sink is behind");
    assert!(warnings(&issuer).contains("cannot be written"));
    limit("unlimited");
    let records = issuer.audit().len() as u64;
    until("the sink has caught up", || {
        written().len() as u64 == records
    });
    assert_eq!(written(), (1..=records).collect::<Vec<_>>());
    until("the warning goes", || warnings(&issuer) == "[]");
}

#[test]
fn a_file_that_was_taken_away_goes_on_with_the_next_record() {
    let sink = Sink::with_directory();
    let issuer = Issuer::start_with(&["--config", &sink.config()]);
    issuer.register("app");
    let before = issuer.audit().len() as u64;
    until("the sink follows", || sink.numbers().len() as u64 == before);
    fs::remove_file(sink.path()).unwrap();
    issuer.run(&["bot", "add", "later"]);
    let after = issuer.audit().len() as u64;
    let rest: Vec<_> = (before + 1..=after).collect();
    until("the sink goes on", || sink.numbers() == rest);
}

fn start_on_a_pipe(data_dir: &Path) -> std::process::Child {
    serve_command(data_dir)
        .args(["--audit-stdout", "--trust-domain", "test.example"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn command(data_dir: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_issuer"));
    command.args(arguments).arg("--data-dir").arg(data_dir);
    command.output().unwrap()
}

#[test]
fn standard_output_has_every_record_at_least_once_over_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let data_dir = home.path().join("data");
    let mut seen = Vec::new();
    for round in 0..2 {
        let mut process = start_on_a_pipe(&data_dir);
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // A record of this round has come: it serves, and the sink is at work.
        until("it serves", || {
            command(&data_dir, &["status"]).status.success()
        });
        let name = format!("bot-{round}");
        assert!(command(&data_dir, &["bot", "add", &name]).status.success());
        loop {
            let line = lines.next().unwrap().unwrap();
            seen.extend(numbers(&line));
            if line.contains("token.create") && line.contains(&name) {
                break;
            }
        }
        match round {
            0 => process.kill().unwrap(),
            _ => signal("TERM", process.id()),
        }
        process.wait().unwrap();
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        seen.extend(numbers(&rest.join("\n")));
    }
    let last = *seen.iter().max().unwrap();
    assert!(last > 8, "{seen:?}");
    let mut once = seen.clone();
    once.dedup();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once, (1..=last).collect::<Vec<_>>(), "{seen:?}");
}

#[test]
fn a_reader_that_stops_reading_holds_up_nobody_and_is_told() {
    let home = tempfile::tempdir().unwrap();
    let data_dir = home.path().join("data");
    let mut process = start_on_a_pipe(&data_dir);
    // Kept open, and never read: it holds 64 KiB.
    let pipe = process.stdout.take().unwrap();
    until("it serves", || {
        command(&data_dir, &["status"]).status.success()
    });
    let mut yaml = String::new();
    for number in 0..400 {
        yaml.push_str(&format!(
            "kind: bot\nversion: v1\nmetadata: {{ name: bot-{number} }}\nspec: {{ roles: [] }}\n---\n"
        ));
    }
    let file = home.path().join("bots.yaml");
    fs::write(&file, yaml).unwrap();
    let applied = command(&data_dir, &["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{applied:?}");
    let listed = command(&data_dir, &["audit", "--event", "bot.create", "-o", "json"]);
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap().lines().count(),
        400
    );
    let status = command(&data_dir, &["status", "-o", "json"]).stdout;
    let status: Value = serde_json::from_slice(&status).unwrap();
    let address = status["diagnostics_address"].as_str().unwrap();
    until("the sink that hangs is told", || {
        let told = fetch(address, "/metrics");
        fetch(address, "/readyz").contains("the audit sink stdout is")
            && told.contains("issuer_audit_sink_up{sink=\"stdout\"} 0")
            && !told.contains("issuer_audit_sink_lag_events{sink=\"stdout\"} 0")
    });
    signal("TERM", process.id());
    let begun = Instant::now();
    while process.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not stop");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(pipe);
}

#[test]
fn after_a_restore_a_sink_says_so_and_goes_on_with_the_restored_trail() {
    let sink = Sink::with_directory();
    let mut issuer = Issuer::start_with(&["--config", &sink.config()]);
    issuer.register("app");
    let at_backup = issuer.audit().len() as u64;
    until("the sink follows", || {
        sink.numbers().len() as u64 == at_backup
    });
    // Its cursor is kept a little later; what it has is found in the file itself.
    let backup = sink.folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    issuer.run(&["backup", backup]);
    issuer.run(&["bot", "add", "lost"]);
    let lost = issuer.audit().len() as u64;
    until("the sink has what will be lost", || {
        sink.numbers().len() as u64 == lost
    });

    // The disk is lost, but for the key.
    issuer.terminate();
    let (data, kept) = (issuer.data_dir(), sink.folder.path().join("kept"));
    fs::copy(data.join("ca.kek"), &kept).unwrap();
    fs::remove_dir_all(&data).unwrap();
    issuer.run(&["restore", backup]);
    fs::copy(&kept, data.join("ca.kek")).unwrap();
    issuer.restart();
    issuer.log.wait_for("holds records that the store does not");
    issuer.run(&["bot", "add", "new"]);
    let records = issuer.audit().len() as u64;
    let whole = |from: u64| (from..=records).collect::<Vec<_>>();
    until("the sink has the restored trail", || {
        let numbers = sink.numbers();
        let since = &numbers[usize::try_from(lost).unwrap()..];
        // From the cursor of the backup on, which may lie a little before it.
        since.first().is_some_and(|first| {
            assert!(*first <= at_backup + 1, "{numbers:?}");
            since == whole(*first)
        })
    });
    assert!(warnings(&issuer) == "[]", "{}", warnings(&issuer));
    // A copy of both cannot pass for either.
    let files = sink.files();
    let mut verify = vec!["audit", "verify"];
    for file in &files {
        verify.extend(["--offline", file.to_str().unwrap()]);
    }
    let told = issuer.fails(&verify);
    assert!(told.contains("out of order"), "{told}");
}

#[test]
fn what_a_failover_lost_comes_again_in_sinks_and_searches() {
    let postgres = Postgres::start();
    let url = postgres.create_database("issuer");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let file = path.to_str().unwrap();
    let issuer = Issuer::start_with(&["--database", &url, "--audit-file", file]);
    issuer.run(&["bot", "add", "app"]);
    let last = issuer.audit().len() as u64;
    let written = || numbers(&fs::read_to_string(&path).unwrap());
    until("the sink follows", || written().len() as u64 == last);
    let mut follow = issuer.command(&["audit", "--follow", "-o", "json"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(follow.stdout.take().unwrap()).lines();
    for number in 1..=last {
        assert_eq!(numbers(&seen.next().unwrap().unwrap()), [number]);
    }

    // As a replica is that had not got the newest record.
    let before = last - 1;
    postgres.query(
        "issuer",
        &format!(
            "DELETE FROM audit_events WHERE sequence > {before}; UPDATE head SET \
             sequence = {before}, hash = (SELECT hash FROM audit_events WHERE sequence = {before})"
        ),
    );
    issuer
        .log
        .wait_for("the store has lost records that an audit sink has");
    issuer.run(&["bot", "add", "other"]);
    let now = issuer.audit().len() as u64;
    let again: Vec<_> = (1..=last).chain(last..=now).collect();
    until("the sink goes on", || written() == again);
    for number in last..=now {
        assert_eq!(numbers(&seen.next().unwrap().unwrap()), [number]);
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn mistakes_in_the_configuration_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuer.yaml");
    let yaml = "audit:\n  file: { max_size: 1KiB, keep: -1 }\n  stdout: maybe\n  syslog: true\n";
    fs::write(&file, yaml).unwrap();
    let output = serve_command(&folder.path().join("data"))
        .args(["--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "at least 4KiB",
        "keep",
        "stdout",
        "syslog",
        "path",
        "yaml:2:",
        "yaml:4:",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
