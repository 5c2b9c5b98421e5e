//! An unmodified PostgreSQL and psql: a session survives rotation, Ctrl-C
//! cancels a query, and a bulk COPY arrives whole.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{Agent, Issuer, Process, eventually, free_port, inbound, outbound, run};

struct Postgres {
    _process: Process,
    port: u16,
    _home: tempfile::TempDir,
}

impl Postgres {
    fn start() -> Self {
        let home = tempfile::Builder::new()
            .prefix("e2e-postgres-")
            .tempdir_in("/tmp")
            .unwrap();
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let port = free_port();
        let as_user = |program: PathBuf| {
            if rustix::process::geteuid().is_root() {
                // PostgreSQL refuses to run as root.
                run(Command::new("chown")
                    .arg("-R")
                    .arg("postgres")
                    .arg(home.path()));
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                    .arg(program);
                command
            } else {
                Command::new(program)
            }
        };
        run(as_user(program("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "app", "-A", "trust", "--no-sync", "-E", "UTF8"])
            .current_dir("/"));
        let process = Process::spawn(
            as_user(program("postgres"))
                .arg("-D")
                .arg(&data)
                .arg("-k")
                .arg(&data)
                .args(["-h", "127.0.0.1", "-p", &port.to_string()])
                .args(["-c", "ssl=off", "-c", "fsync=off"])
                .current_dir("/"),
            &home.path().join("postgres.log"),
        );
        eventually("PostgreSQL answers", || {
            psql(port, &["-c", "select 1"])
                .output()
                .is_ok_and(|o| o.status.success())
        });
        Self {
            _process: process,
            port,
            _home: home,
        }
    }
}

fn program(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    debian
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| Path::new(name).to_owned())
}

fn psql(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command
        .arg(format!(
            "host=127.0.0.1 port={port} user=app dbname=postgres sslmode=disable gssencmode=disable"
        ))
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1"])
        .args(arguments);
    command
}

#[test]
fn sessions_cancel_and_copy_work_through_both_proxies() {
    let postgres = Postgres::start();
    let issuer = Issuer::start();
    let (db_token, app_token) = (issuer.register("db"), issuer.register("app"));
    let (mtls, plain) = (free_port(), free_port());
    let db = Agent::start(
        &issuer,
        &db_token,
        &[inbound(
            "db",
            mtls,
            &format!("127.0.0.1:{}", postgres.port),
            &["spiffe://e2e.example/app"],
        )],
    );
    let _app = Agent::start(
        &issuer,
        &app_token,
        &[outbound("app", plain, mtls, &["spiffe://e2e.example/db"])],
    );

    // A session that the shell inside psql rotates the identities under.
    let renew = format!(
        "\\! {} renew-now --data-dir {}",
        e2e::binary("issuer").display(),
        issuer.home().join("issuer-data").display()
    );
    let script = issuer.home().join("session.sql");
    std::fs::write(
        &script,
        format!(
            "select pg_backend_pid();\n{renew}\nselect pg_sleep(1);\nselect pg_backend_pid();\n"
        ),
    )
    .unwrap();
    let answer = run(&mut psql(plain, &["-f", script.to_str().unwrap()]));
    let pids: Vec<_> = answer
        .lines()
        .filter(|l| l.parse::<u32>().is_ok())
        .collect();
    assert!(pids.len() == 2 && pids[0] == pids[1], "{answer}");

    // A million rows out and in again, byte for byte.
    let rows = run(&mut psql(
        plain,
        &[
            "-c",
            "copy (select n, md5(n::text) from generate_series(1, 300000) n) to stdout",
        ],
    ));
    let file = issuer.home().join("rows");
    std::fs::write(&file, &rows).unwrap();
    run(&mut psql(
        plain,
        &["-c", "create table rows (n int, hash text)"],
    ));
    run(&mut psql(
        plain,
        &["-c", &format!("\\copy rows from '{}'", file.display())],
    ));
    let count = run(&mut psql(
        postgres.port,
        &["-c", "select count(*) from rows where hash = md5(n::text)"],
    ));
    assert_eq!(count.trim(), "300000");

    // Ctrl-C: psql opens a second connection with a CancelRequest.
    let log = issuer.home().join("sleep.log");
    let mut sleeper = Process::spawn(&mut psql(plain, &["-c", "select pg_sleep(600)"]), &log);
    eventually("the query runs", || {
        let active = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'";
        run(&mut psql(postgres.port, &["-c", active])).trim() == "1"
    });
    sleeper.signal(rustix::process::Signal::INT);
    assert!(!sleeper.wait().success());
    assert!(
        sleeper.log().contains("canceling statement"),
        "{}",
        sleeper.log()
    );

    db.connection("a record with the bytes of the COPY", |r| {
        r["bytes_out"].as_u64().unwrap_or(0) >= rows.len() as u64 && r["reason"] == "complete"
    });
}
