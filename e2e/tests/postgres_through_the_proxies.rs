//! An unmodified PostgreSQL and psql: a session survives rotation, Ctrl-C
//! cancels a query, and a bulk COPY arrives whole.

use e2e::{Agent, Issuer, Postgres, Process, eventually, free_port, inbound, outbound, psql, run};

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
            &format!("127.0.0.1:{}", postgres.port()),
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
        postgres.port(),
        &["-c", "select count(*) from rows where hash = md5(n::text)"],
    ));
    assert_eq!(count.trim(), "300000");

    // Ctrl-C: psql opens a second connection with a CancelRequest.
    let log = issuer.home().join("sleep.log");
    let mut sleeper = Process::spawn(&mut psql(plain, &["-c", "select pg_sleep(600)"]), &log);
    eventually("the query runs", || {
        let active = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'";
        run(&mut psql(postgres.port(), &["-c", active])).trim() == "1"
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
