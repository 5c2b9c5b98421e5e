//! The commands that a person types, before a real agent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::Write,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use e2e::{Agent, Issuer, Process, binary, eventually, free_port, x509_output};
use identity::testing::TestCa;
use proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest,
    WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use serde_json::Value;
use tonic::{Request, Response, Status, transport::Server};

/// Runs `tbot-proxy` with these arguments.
fn tbot(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("tbot-proxy"));
    command.args(arguments).env_clear();
    command
}

fn run(arguments: &[&str]) -> String {
    let output = tbot(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let text = run(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The one line that a command that fails says.
fn complaint(output: &Output) -> String {
    complaint_with(1, output)
}

/// The same, with this exit status.
fn complaint_with(status: i32, output: &Output) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("tbot-proxy: "), "{text}");
    text
}

/// An agent with a Workload API at `wl.sock` and files in `out`.
fn agent(home: &Path) -> (Issuer, Agent, String) {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let socket = format!("unix://{}", home.join("wl.sock").display());
    let api = format!(
        "type: workload-identity-api, name: api, selector: {{ name: app }}, listen: \"{socket}\""
    );
    let files = x509_output("app", &home.join("out"));
    let agent = Agent::start(&issuer, &token, &[api, files]);
    (issuer, agent, socket)
}

#[test]
fn a_person_sees_what_a_workload_gets() {
    let home = tempfile::tempdir().unwrap();
    let (_issuer, agent, socket) = agent(home.path());
    let socket = ["--socket", socket.as_str()];
    let ask = |arguments: &[&str]| run(&[arguments, &socket].concat());
    let id = "spiffe://e2e.example/app";

    let listed = ask(&["svid", "list"]);
    assert!(listed.contains(id), "{listed}");
    let listed = json(&[&["svid", "list", "-o", "json"][..], &socket].concat());
    assert_eq!(listed["svids"][0]["id"], id);
    let shown = json(&[&["svid", "show", id, "-o", "json"][..], &socket].concat());
    assert_eq!(shown[0]["names"][0], format!("URI:{id}"));
    assert_eq!(shown[0]["serial"], listed["svids"][0]["serial"]);
    let text = ask(&["svid", "show"]);
    assert!(text.contains("BEGIN CERTIFICATE"), "{text}");
    assert!(
        !text.contains("PRIVATE KEY"),
        "keys are never shown: {text}"
    );

    let token = ask(&["jwt", "fetch", "--audience", "db"]);
    let valid = |audience: &str| {
        let mut command = tbot(&["jwt", "validate", "--audience", audience]);
        let mut child = command
            .args(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(token.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let claims: Value = serde_json::from_slice(&valid("db").stdout).unwrap();
    assert_eq!(claims["id"], id);
    assert_eq!(claims["claims"]["sub"], id);
    let refused = complaint(&valid("other"));
    assert!(refused.contains("not valid"), "{refused}");

    let bundle = ask(&["bundle", "show", "e2e.example"]);
    assert!(bundle.contains("BEGIN CERTIFICATE"), "{bundle}");
    let keys = ask(&["bundle", "show", "--jwt"]);
    assert!(keys.contains("\"kid\""), "{keys}");
    let unknown = tbot(&["bundle", "show", "other.example"])
        .args(socket)
        .output()
        .unwrap();
    assert!(complaint(&unknown).contains("no trust bundle of other.example"));
    let unknown = tbot(&["svid", "show", "spiffe://e2e.example/x"])
        .args(socket)
        .output()
        .unwrap();
    assert!(complaint(&unknown).contains("this process has no X509-SVID"));

    let diagnostics = agent.diagnostics();
    let status = run(&["status", "--diagnostics", &diagnostics]);
    for expected in [id, "api", "app-files", "connected", "ready"] {
        assert!(status.contains(expected), "{expected}: {status}");
    }
    let status = json(&["status", "--diagnostics", &diagnostics, "-o", "json"]);
    assert_eq!(status["status"], "ready");
    assert_eq!(status["issuer"]["connected"], true);
    assert!(status["identities"][0]["svids"][0]["seconds_left"].as_u64() > Some(0));
    let (_, metrics) = agent.get("/metrics").unwrap();
    assert!(
        metrics.contains("tbot_identity_offline_budget_seconds{identity=\"app\"}"),
        "{metrics}"
    );
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = format!("unix://{}/none.sock", home.path().display());
    let away = tbot(&["svid", "list", "--socket", &nowhere])
        .output()
        .unwrap();
    let away = complaint(&away);
    assert!(away.contains("is the agent running?"), "{away}");
    let away = tbot(&["status", "--diagnostics", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(complaint(&away).contains("does it run"));
    let nothing = tbot(&["start"]).output().unwrap();
    assert!(complaint_with(2, &nothing).contains("nothing to start"));
    let gone = tbot(&["attest", "--pid", "4194304"]).output().unwrap();
    assert!(complaint(&gone).contains("cannot attest process 4194304"));
    let selector = ["start", "workload-identity-api", "--name-selector", "app"];
    let missing = tbot(&selector).output().unwrap();
    assert!(complaint_with(2, &missing).contains("--issuer (TBOT_ISSUER) is missing"));
    for socket in ["unix://relative", "http://127.0.0.1:1", "tcp://localhost:1"] {
        let wrong = tbot(&["svid", "list", "--socket", socket])
            .output()
            .unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{socket}: {wrong:?}");
    }
}

#[test]
fn a_service_starts_by_flags_alone_and_configure_prints_what_that_runs() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let (socket, storage) = (format!("unix://{}", path("wl.sock")), path("storage"));
    let diagnostics = format!("127.0.0.1:{}", free_port());
    let flags = [
        "workload-identity-api",
        "--name-selector",
        "app",
        "--listen",
        &socket,
        "--issuer",
        &issuer.address(),
        "--ca-pin",
        issuer.ca_pin(),
        "--storage",
        &storage,
        "--diagnostics",
        &diagnostics,
    ];
    let printed = run(&[&["configure"], &flags[..]].concat());
    std::fs::write(path("agent.yaml"), &printed).unwrap();
    run(&["check", "-c", &path("agent.yaml")]);
    assert!(!printed.contains("token:"), "{printed}");

    let broker = [
        "configure",
        "spiffe-broker-api",
        "--label-selector",
        "team=orders",
        "--identity",
        "agent",
        "--broker",
        "spiffe://e2e.example/node-proxy",
    ];
    let printed = run(&[&broker, &flags[5..]].concat());
    std::fs::write(path("broker.yaml"), &printed).unwrap();
    run(&["check", "-c", &path("broker.yaml")]);

    let log = home.path().join("agent.log");
    let mut command = tbot(&[&["start"], &flags[..]].concat());
    command.env("TBOT_TOKEN", &token);
    let _agent = Process::spawn(&mut command, &log);
    eventually("the Workload API answers", || {
        let answer = tbot(&["svid", "list", "--socket", &socket])
            .output()
            .unwrap();
        answer.status.success()
    });
}

#[test]
fn attest_shows_what_rules_can_ask() {
    let me = std::process::id().to_string();
    let shown = json(&["attest", "--pid", &me, "-o", "json"]);
    let unix = &shown["workload"]["unix"];
    assert_eq!(unix["pid"].to_string(), me);
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(unix["uid"].as_u64(), Some(uid.into()));
    let table = run(&["attest", "--pid", &me]);
    assert!(table.contains("workload.unix.uid"), "{table}");
}

#[test]
fn the_unit_is_one_that_systemd_accepts() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().display().to_string();
    let flags = [
        "--systemd-directory",
        &directory,
        "--socket",
        "/run/tbot-proxy/wl.sock",
    ];
    let install = [&["install", "systemd"], &flags[..]].concat();
    for path in [
        "/etc/a b.yaml",
        "/etc/%h.yaml",
        "relative.yaml",
        "/etc/a\nUser=root",
    ] {
        let wrong = tbot(&["install", "systemd", "-c", path]).output().unwrap();
        let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert!(said.contains("cannot stand in a unit"), "{path}: {said}");
    }
    let dry = run(&install);
    assert!(dry.contains("NoNewPrivileges=yes"), "{dry}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    run(&[&install[..], &["--write"]].concat());
    let unit = home.path().join("tbot-proxy.service");
    std::fs::write(&unit, "[Unit]\n").unwrap();
    let there = tbot(&install).arg("--write").output().unwrap();
    assert!(complaint(&there).contains("--force replaces it"));
    run(&[&install[..], &["--write", "--force"]].concat());

    let socket = home.path().join("tbot-proxy.socket");
    match Command::new("systemd-analyze")
        .arg("verify")
        .args([&unit, &socket])
        .output()
    {
        Err(error) => eprintln!("SKIPPED: no systemd-analyze: {error}"),
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            let of_ours: Vec<_> = said
                .lines()
                .filter(|line| line.contains("tbot-proxy") && !line.contains("man tbot-proxy"))
                .collect();
            assert!(of_ours.is_empty(), "{said}");
        }
    }
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let text = run(&["completions", shell]);
        assert!(text.contains("workload-identity-api"), "{shell}");
    }
    let page = run(&["man"]);
    assert!(
        page.starts_with(".ie") || page.contains(".TH tbot-proxy 1"),
        "{page}"
    );
    let home = tempfile::tempdir().unwrap();
    run(&["man", &home.path().display().to_string()]);
    assert!(home.path().join("tbot-proxy-svid-list.1").exists());
}

#[test]
fn systemd_is_told_when_it_is_ready_and_keeps_the_socket() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let told = UnixDatagram::bind(home.path().join("notify")).unwrap();
    // As `/var/run` leads to `/run`.
    std::os::unix::fs::symlink(home.path(), home.path().join("var")).unwrap();
    let socket = format!("unix://{}", path("var/wl.sock"));
    let diagnostics = format!("127.0.0.1:{}", free_port());
    let start = [
        &binary("tbot-proxy").display().to_string(),
        "start",
        "workload-identity-api",
        "--name-selector",
        "app",
        "--listen",
        &socket,
        "--issuer",
        &issuer.address(),
        "--ca-pin",
        issuer.ca_pin(),
        "--storage",
        "memory",
        "--diagnostics",
        &diagnostics,
    ]
    .map(str::to_owned);
    let activate = Command::new("systemd-socket-activate")
        .arg("--version")
        .output();
    if activate.is_err() {
        eprintln!("SKIPPED: no systemd-socket-activate");
        return;
    }
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(["-l", &path("wl.sock"), "-l", &path("nobodys.sock")])
        .args([
            "-E",
            "TBOT_TOKEN",
            "-E",
            "NOTIFY_SOCKET",
            "-E",
            "WATCHDOG_USEC",
        ])
        .args(&start)
        .env("TBOT_TOKEN", &token)
        .env("NOTIFY_SOCKET", path("notify"))
        .env("WATCHDOG_USEC", "2000000");
    let log = home.path().join("agent.log");
    let _agent = Process::spawn(&mut command, &log);
    // The connection starts the agent, which finds it waiting on the socket.
    eventually("the Workload API answers", || {
        let answer = tbot(&["svid", "list", "--socket", &socket])
            .output()
            .unwrap();
        answer.status.success()
    });
    told.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut seen = String::new();
    while !(seen.contains("READY=1") && seen.contains("WATCHDOG=1")) {
        let mut message = [0; 512];
        let length = told.recv(&mut message).unwrap();
        seen.push_str(&String::from_utf8_lossy(&message[..length]));
        seen.push('\n');
    }
    let said = std::fs::read_to_string(&log).unwrap();
    let waits_in_vain = |line: &&str| line.contains("waits in vain");
    let lines: Vec<_> = said.lines().filter(waits_in_vain).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("nobodys.sock"), "{said}");
}

/// A Workload API that answers with text of its own choosing.
struct Hostile {
    svid: Vec<u8>,
    bundle: Vec<u8>,
}

/// What would clear a terminal, in seven bits and in eight.
const HOSTILE: &str = "spiffe://td/x\u{1b}[2J\u{9b}2J\u{202e}";

type Answers<T> = futures_util::stream::BoxStream<'static, Result<T, Status>>;

fn answers<T: Send + 'static>(answer: T) -> Result<Response<Answers<T>>, Status> {
    let once = futures_util::stream::once(async { Ok(answer) });
    Ok(Response::new(Box::pin(once)))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Hostile {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<WitsvidResponse>;
    type FetchWITBundlesStream = Answers<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        _: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let svid = X509svid {
            spiffe_id: HOSTILE.to_owned(),
            hint: HOSTILE.to_owned(),
            x509_svid: self.svid.clone(),
            bundle: self.bundle.clone(),
            ..X509svid::default()
        };
        answers(X509svidResponse {
            svids: vec![svid],
            ..X509svidResponse::default()
        })
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        answers(X509BundlesResponse {
            bundles: [(HOSTILE.to_owned(), self.bundle.clone())].into(),
            ..X509BundlesResponse::default()
        })
    }

    async fn fetch_jwtsvid(
        &self,
        _: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        Err(Status::permission_denied(HOSTILE))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::permission_denied(HOSTILE))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::permission_denied(HOSTILE))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_moves_no_cursor() {
    let ca = TestCa::new("td");
    let svid = ca.svid("/x", Duration::from_secs(3600));
    let server = Hostile {
        svid: svid.chain()[0].to_vec(),
        bundle: ca.certificate().to_vec(),
    };
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("wl.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let incoming = futures_util::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let served = Server::builder()
        .add_service(SpiffeWorkloadApiServer::new(server))
        .serve_with_incoming(Box::pin(incoming));
    let served = tokio::spawn(served);
    let socket = format!("unix://{}", path.display());
    let commands = [
        &["svid", "list"][..],
        &["svid", "show"],
        &["svid", "show", "spiffe://td/absent"],
        // Until the stream ends.
        &["svid", "watch"],
        &["bundle", "show"],
        &["bundle", "show", "absent"],
        &["bundle", "show", "--jwt"],
        &["jwt", "fetch", "--audience", "a"],
    ];
    for command in commands {
        let mut command = tbot(command);
        command.args(["--socket", &socket]);
        let name = format!("{command:?}");
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let Output { stdout, stderr, .. } = output.unwrap().unwrap();
        let said = String::from_utf8([stdout, stderr].concat()).unwrap();
        let moves = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!said.contains(moves), "{name}: {said:?}");
        assert!(said.contains("\\u{1b}[2J\\u{9b}2J"), "{name}: {said:?}");
    }
    served.abort();
}
