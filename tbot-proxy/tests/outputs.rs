//! Outputs of the agent: each type, what is done after a change, what is left at the end;
//! once and for ever; and what waits for them.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use e2e::{Agent, Issuer, binary, eventually, inbound, run, run_expecting_failure, x509_output};
use identity::{JwtSvid, Leeway, TrustBundleSet};
use rustix::process::Signal;

fn output(kind: &str, name: &str, directory: &Path, more: &str) -> String {
    format!(
        "type: {kind}, name: {name}, selector: {{ name: app }}, \
         destination: {{ type: directory, path: {} }}, {more}",
        directory.display()
    )
}

fn ready(agent: &Agent, service: &str) -> Option<String> {
    let (status, body) = agent.get(&format!("/readyz/{service}"))?;
    (status == 200).then_some(body)
}

#[test]
fn a_token_is_written_validated_with_the_bundle_map_and_renewed() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (jwt, map) = (home.path().join("jwt"), home.path().join("map"));
    let agent = Agent::start(
        &issuer,
        &token,
        &[
            output(
                "workload-identity-jwt",
                "token",
                &jwt,
                "audiences: [db, web], file_names: { jwt_svid: token }",
            ),
            output("spiffe-bundle-map", "bundles", &map, ""),
        ],
    );
    let read = || fs::read_to_string(jwt.join("token")).unwrap();
    let first = read();
    let bundles = TrustBundleSet::from_map_json(&fs::read(map.join("bundle_map.json")).unwrap());
    let bundles = bundles.unwrap();
    for audience in ["db", "web"] {
        let now = SystemTime::now();
        let svid = JwtSvid::validate(&first, audience, &bundles, now, Leeway::default());
        assert_eq!(svid.unwrap().id().as_str(), "spiffe://e2e.example/app");
    }
    assert!(
        JwtSvid::validate(&first, "x", &bundles, SystemTime::now(), Leeway::default()).is_err()
    );
    agent.renew();
    eventually("the token is another one", || read() != first);
    assert!(!agent.log().contains(&first), "a token is in the log");
}

#[test]
fn keystores_names_readers_and_hooks() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (out, ran) = (home.path().join("out"), home.path().join("ran"));
    let password = home.path().join("password");
    fs::write(&password, "changeit\n").unwrap();
    let script = format!(
        "cat \\\"$0/tls.crt\\\" > {0}.next && mv {0}.next {0}",
        ran.display()
    );
    let service = output(
        "workload-identity-x509",
        "files",
        &out,
        &format!(
            "formats: [pem, pkcs12], keystore_password: {{ file: {} }}, \
             file_names: {{ svid.pem: tls.crt, svid_key.pem: tls.key }}, \
             hooks: [{{ command: [sh, -c, \"{script}\", {}], timeout: 20s }}]",
            password.display(),
            out.display()
        ),
    );
    let service = service.replace(
        " }, formats",
        ", file_mode: \"0400\", readers: [{ user: root }], acls: required }, formats",
    );
    let agent = Agent::start(&issuer, &token, &[service]);
    let certificate = fs::read(out.join("tls.crt")).unwrap();
    assert_eq!(
        fs::read(&ran).unwrap(),
        certificate,
        "the hook saw the new set"
    );
    assert!(out.join("tls.key").exists() && !out.join("svid.pem").exists());
    let info = run(Command::new("openssl")
        .args(["pkcs12", "-nokeys", "-passin", "pass:changeit", "-in"])
        .arg(out.join("svid.p12")));
    assert!(info.contains("BEGIN CERTIFICATE"), "{info}");
    agent.renew();
    eventually("the hook runs after each change", || {
        let now = fs::read(&ran).unwrap();
        now != certificate && now == fs::read(out.join("tls.crt")).unwrap()
    });
    let hooks = "tbot_output_hooks_total{service=\"files\",result=\"success\"}";
    assert!(agent.metric(hooks).unwrap() >= 2.0);
}

#[test]
fn a_hook_that_fails_is_a_warning_and_an_output_that_cannot_be_made_degrades_alone() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("no-password");
    let agent = Agent::start_without_waiting(
        &issuer,
        &token,
        &[
            output(
                "workload-identity-x509",
                "hooked",
                &home.path().join("a"),
                "hooks: [{ command: [sh, -c, \"echo no such thing >&2; exit 7\"] }, { signal: HUP, pid_file: /no/such/pid }]",
            ),
            output(
                "workload-identity-x509",
                "locked",
                &home.path().join("b"),
                &format!("formats: [jks], keystore_password: {{ file: {} }}", missing.display()),
            ),
            "type: workload-identity-x509, name: memory, selector: { name: app }, destination: { type: memory }".to_owned(),
        ],
    );
    eventually(
        "one warns, one waits for its password, one is ready",
        || {
            let warned = ready(&agent, "hooked").is_some_and(|body| {
                body.contains("no such thing") && body.contains("/no/such/pid")
            });
            let locked = agent.get("/readyz/locked").is_some_and(|(status, body)| {
                status == 503 && body.contains("keystore_password") && body.contains("no-password")
            });
            warned && locked && ready(&agent, "memory").is_some()
        },
    );
    assert!(home.path().join("a/svid.pem").exists());
    fs::write(&missing, "changeit").unwrap();
    agent.renew();
    agent.wait();
    assert!(home.path().join("b/svid.jks").exists());
}

#[test]
fn what_has_expired_is_removed_if_that_is_configured() {
    let mut issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (keep, remove, jwt) = (
        home.path().join("keep"),
        home.path().join("remove"),
        home.path().join("jwt"),
    );
    let agent = Agent::start(
        &issuer,
        &token,
        &[
            output(
                "workload-identity-x509",
                "keep",
                &keep,
                "credential_ttl: 8s",
            ),
            output(
                "workload-identity-x509",
                "remove",
                &remove,
                "credential_ttl: 8s, on_expiry: remove",
            ),
            output(
                "workload-identity-jwt",
                "jwt",
                &jwt,
                "audiences: [a], credential_ttl: 8s, on_expiry: remove",
            ),
        ],
    );
    issuer.kill();
    eventually("what has expired is gone", || {
        !remove.join("svid_key.pem").exists() && !jwt.join("jwt_svid").exists()
    });
    eventually("and every output says so", || {
        ["keep", "remove", "jwt"].iter().all(|service| {
            let path = format!("/readyz/{service}");
            agent
                .get(&path)
                .is_some_and(|(status, body)| status == 503 && body.contains("expired"))
        })
    });
    assert!(keep.join("svid_key.pem").exists());
    assert!(fs::symlink_metadata(remove.join("..data")).is_err());
    issuer.restart();
    agent.wait();
    assert!(remove.join("svid_key.pem").exists() && jwt.join("jwt_svid").exists());
}

#[test]
fn nothing_is_left_at_the_end_if_that_is_wanted() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (wiped, kept) = (home.path().join("wiped"), home.path().join("kept"));
    let mut agent = Agent::start_with_environment(
        &issuer,
        &token,
        &[x509_output("app", &wiped)],
        &[("TBOT_WIPE_ON_EXIT", "true")],
    );
    fs::write(wiped.join("mine"), "mine").unwrap();
    // A reload is no end.
    let renamed = x509_output("app", &wiped).replace("app-files", "again");
    agent.write_services(&[renamed]);
    agent.process().signal(Signal::HUP);
    eventually("the successor is ready", || {
        ready(&agent, "again").is_some()
    });
    assert!(wiped.join("svid_key.pem").exists());
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait().success());
    let mut left: Vec<_> = fs::read_dir(&wiped)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["..lock", "mine"]);

    let token = issuer.token("app", &[]);
    let mut agent = Agent::start(&issuer, &token, &[x509_output("app", &kept)]);
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait().success());
    assert!(kept.join("svid_key.pem").exists());
}

/// A run of `start --oneshot` in a directory of its own.
struct Once {
    home: tempfile::TempDir,
    command: Command,
}

impl Once {
    fn new(issuer: &Issuer, token: &str, services: impl Fn(&Path) -> Vec<String>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let lines: Vec<_> = services(home.path())
            .iter()
            .map(|service| format!("  - {{ {service} }}\n"))
            .collect();
        let text = format!(
            "version: v1\nissuer: {{ address: \"{}\", ca_pins: [\"{}\"] }}\n\
             onboarding: {{ join_method: token }}\nstorage: {{ type: memory }}\nservices:\n{}",
            issuer.address(),
            issuer.ca_pin(),
            lines.concat()
        );
        let file = home.path().join("agent.yaml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(binary("tbot-proxy"));
        command
            .args(["start", "--oneshot", "-c"])
            .arg(file)
            .env("TBOT_TOKEN", token);
        Self { home, command }
    }
}

#[test]
fn once_every_output_is_written_and_the_exit_status_tells() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let mut good = Once::new(&issuer, &token, |home| {
        vec![
            x509_output("app", &home.join("x509")),
            output(
                "workload-identity-jwt",
                "jwt",
                &home.join("jwt"),
                "audiences: [a]",
            ),
        ]
    });
    run(&mut good.command);
    assert!(good.home.path().join("x509/svid_key.pem").exists());
    assert!(good.home.path().join("jwt/jwt_svid").exists());

    let mut bad = Once::new(&issuer, &issuer.token("app", &[]), |home| {
        fs::create_dir(home.join("bad")).unwrap();
        fs::write(home.join("bad/svid.pem"), "mine").unwrap();
        let broken = x509_output("app", &home.join("bad")).replace("app-files", "broken");
        vec![broken, x509_output("app", &home.join("good"))]
    });
    let exit = run_expecting_failure(&mut bad.command);
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.stderr.contains("tbot-proxy: service broken: ")
            && exit.stderr.contains("move it away"),
        "{}",
        exit.stderr
    );
    assert!(
        !exit.stderr.contains("tbot-proxy: service app-files"),
        "{}",
        exit.stderr
    );
    assert!(bad.home.path().join("good/svid.pem").exists());

    let mut refused = Once::new(&issuer, &issuer.token("app", &[]), |home| {
        vec![x509_output("nobody", &home.join("out"))]
    });
    let exit = run_expecting_failure(refused.command.args(["--oneshot-timeout", "3s"]));
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.stderr.contains("not done within 3s") && exit.stderr.contains("`nobody`"),
        "{}",
        exit.stderr
    );

    let mut long = Once::new(&issuer, "unused", |home| {
        vec![
            inbound("app", 0, "127.0.0.1:1", &["spiffe://td/x"]),
            x509_output("app", &home.join("out")),
        ]
    });
    let exit = run_expecting_failure(&mut long.command);
    assert!(
        exit.stderr.contains("app-in") && exit.stderr.contains("run for ever"),
        "{}",
        exit.stderr
    );
    assert!(!long.home.path().join("out").exists());
}

#[test]
fn each_output_is_written_once_by_flags_alone() {
    let issuer = Issuer::start();
    let home = tempfile::tempdir().unwrap();
    let token = issuer.register("app");
    let arn = |kind: &str| format!("arn:aws:rolesanywhere:eu-central-1:123456789012:{kind}/1f2e");
    let (profile, anchor) = (arn("profile"), arn("trust-anchor"));
    let address = issuer.address();
    let tbot = |what: &str, kind: &str, more: &[&str]| {
        let mut command = Command::new(binary("tbot-proxy"));
        command
            .args([what, kind, "--name-selector", "app", "--storage", "memory"])
            .args(["--issuer", &address, "--ca-pin", issuer.ca_pin()])
            .arg("--destination")
            .arg(home.path().join(kind))
            .args(more);
        command
    };
    for (kind, more, file) in [
        (
            "workload-identity-x509",
            &["--reader-user", "root"][..],
            "svid_key.pem",
        ),
        ("workload-identity-jwt", &["--audience", "db"], "jwt_svid"),
        (
            "spiffe-bundle-map",
            &["--reader-group", "0"],
            "bundle_map.json",
        ),
    ] {
        let once = [more, &["--oneshot"][..]].concat();
        let token = if kind.ends_with("x509") {
            token.clone()
        } else {
            issuer.token("app", &[])
        };
        run(tbot("start", kind, &once).env("TBOT_TOKEN", token));
        assert!(home.path().join(kind).join(file).exists(), "{kind}");
    }
    let aws = [
        "--role-arn",
        "arn:aws:iam::123456789012:role/app",
        "--profile-arn",
        &profile,
        "--trust-anchor-arn",
        &anchor,
        "--session-duration",
        "1h",
        "--credential-profile-name",
        "prod",
    ];
    let printed = run(&mut tbot(
        "configure",
        "workload-identity-aws-roles-anywhere",
        &aws,
    ));
    let file = home.path().join("aws.yaml");
    fs::write(&file, &printed).unwrap();
    let checked = run(Command::new(binary("tbot-proxy"))
        .args(["check", "-c"])
        .arg(file));
    assert!(checked.contains("no mistakes, 1 service"), "{checked}");
}

#[test]
fn wait_ends_when_all_is_ready_or_says_what_is_not() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let port = e2e::free_port();
    let address = format!("127.0.0.1:{port}");
    let wait = |more: &[&str]| {
        let mut command = Command::new(binary("tbot-proxy"));
        command.args(["wait", "--diagnostics", &address]).args(more);
        command
    };
    let exit = run_expecting_failure(&mut wait(&["--timeout", "1s"]));
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.stderr.contains("not ready within 1s"),
        "{}",
        exit.stderr
    );
    // Begun before the agent is there.
    let mut early = wait(&["--timeout", "1m"]).spawn().unwrap();
    let blocked = home.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("svid.pem"), "mine").unwrap();
    let _agent = Agent::start_without_waiting_on(
        port,
        &issuer,
        &token,
        &[
            x509_output("app", &home.path().join("out")),
            x509_output("app", &blocked).replace("app-files", "blocked"),
        ],
    );
    run(&mut wait(&["--service", "app-files"]));
    let exit = run_expecting_failure(&mut wait(&["--timeout", "1s"]));
    assert!(
        exit.stderr.contains("blocked: ") && exit.stderr.contains("move it away"),
        "{}",
        exit.stderr
    );
    assert!(!exit.stderr.contains("app-files"), "{}", exit.stderr);
    let exit = run_expecting_failure(&mut wait(&["--service", "absent", "--timeout", "1h"]));
    assert!(exit.stderr.contains("no such service"), "{}", exit.stderr);
    fs::remove_file(blocked.join("svid.pem")).unwrap();
    assert!(early.wait().unwrap().success());
}

struct RolesAnywhere {
    process: Child,
    port: u16,
}

impl RolesAnywhere {
    fn start(home: &Path, anchor: &Path) -> Option<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = package.join("../target/peers/bin/python");
        if !python.exists() {
            eprintln!("SKIPPED: there is no {}: make peers", python.display());
            return None;
        }
        run(Command::new("openssl").current_dir(home).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            "aws.key",
            "-out",
            "aws.pem",
        ]));
        let mut process = Command::new(python)
            .arg(package.join("output/tests/peers/rolesanywhere.py"))
            .args([
                home.join("aws.pem"),
                home.join("aws.key"),
                anchor.to_owned(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().parse().unwrap();
        Some(Self { process, port })
    }
}

impl Drop for RolesAnywhere {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// AWS's own library for Python takes the file, and the program of a `credential_process`.
fn botocore_reads(directory: &Path, process: &Command) {
    const READ: &str = "
import sys, botocore.session
for profile in sys.argv[1:]:
    credentials = botocore.session.Session(profile=profile).get_credentials()
    print(profile, credentials.method, credentials.get_frozen_credentials().secret_key)
";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/python");
    let has = Command::new(&python)
        .args(["-c", "import botocore"])
        .status();
    if !has.unwrap().success() {
        eprintln!("SKIPPED: there is no botocore: make peers");
        return;
    }
    let words: Vec<_> = [process.get_program()]
        .into_iter()
        .chain(process.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let config = directory.join("config");
    let text = format!(
        "[profile helper]\ncredential_process = {}\n",
        words.join(" ")
    );
    fs::write(&config, text).unwrap();
    let read = run(Command::new(python)
        .args(["-c", READ, "prod", "test", "helper"])
        .env(
            "AWS_SHARED_CREDENTIALS_FILE",
            directory.join("aws_credentials"),
        )
        .env("AWS_CONFIG_FILE", config));
    let secret = "secret/of+eu-central-1";
    assert_eq!(
        read,
        format!(
            "prod shared-credentials-file {secret}\ntest shared-credentials-file {secret}\nhelper custom-process {secret}\n"
        )
    );
}

#[test]
fn credentials_of_aws_are_written_beside_other_profiles_and_printed() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (svid, aws) = (home.path().join("svid"), home.path().join("aws"));
    let mut agent = Agent::start(&issuer, &token, &[x509_output("app", &svid)]);
    let Some(stand) = RolesAnywhere::start(home.path(), &svid.join("bundle.pem")) else {
        return;
    };
    fs::create_dir(&aws).unwrap();
    run(Command::new("chmod").arg("700").arg(&aws));
    fs::write(
        aws.join("aws_credentials"),
        "[mine]\naws_access_key_id = K\n",
    )
    .unwrap();
    let arn = |kind: &str| format!("arn:aws:rolesanywhere:eu-central-1:123456789012:{kind}/1f2e");
    let role = "arn:aws:iam::123456789012:role/app";
    let endpoint = format!("https://localhost:{}", stand.port);
    let ca = home.path().join("aws.pem");
    let service = |name: &str, profile: &str| {
        output(
            "workload-identity-aws-roles-anywhere",
            name,
            &aws,
            &format!(
                "role_arn: \"{role}\", profile_arn: \"{}\", trust_anchor_arn: \"{}\", \
                 session_duration: 15m, credential_profile_name: {profile}, \
                 endpoint: \"{endpoint}\", endpoint_ca_path: {}",
                arn("profile"),
                arn("trust-anchor"),
                ca.display()
            ),
        )
    };
    agent.write_services(&[
        x509_output("app", &svid),
        service("prod", "prod"),
        service("test", "test"),
    ]);
    agent.process().signal(Signal::HUP);
    eventually("both profiles are written", || {
        ready(&agent, "prod").is_some() && ready(&agent, "test").is_some()
    });
    let text = fs::read_to_string(aws.join("aws_credentials")).unwrap();
    assert!(
        text.starts_with("[mine]\naws_access_key_id = K\n"),
        "{text}"
    );
    assert!(text.contains("[prod]\naws_access_key_id = ASIA"), "{text}");
    assert!(text.contains("[test]\naws_access_key_id = ASIA"), "{text}");
    assert_eq!(
        text.matches("aws_secret_access_key = secret/of+eu-central-1")
            .count(),
        2
    );
    let expiry = agent
        .metric("tbot_svid_expiry_timestamp_seconds{service=\"prod\"}")
        .unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(
        (now..now + 1_000.0).contains(&expiry),
        "the expiry of the session"
    );
    assert!(!agent.log().contains("secret/of"), "a secret is in the log");

    let mut process = Command::new(binary("tbot-proxy"));
    process
        .args([
            "aws-credential-process",
            "--role-arn",
            role,
            "--svid-directory",
        ])
        .arg(&svid)
        .args([
            "--profile-arn",
            &arn("profile"),
            "--trust-anchor-arn",
            &arn("trust-anchor"),
        ])
        .args([
            "--session-duration",
            "20m",
            "--endpoint",
            &endpoint,
            "--endpoint-ca-path",
        ])
        .arg(&ca);
    let printed: serde_json::Value = serde_json::from_str(&run(&mut process)).unwrap();
    assert_eq!(printed["Version"], 1);
    assert_eq!(printed["SecretAccessKey"], "secret/of+eu-central-1");
    botocore_reads(&aws, &process);
    process.args(["--svid-directory", "/no/such/directory"]);
    let exit = run_expecting_failure(&mut process);
    assert_eq!(exit.code, Some(2), "given twice: {}", exit.stderr);

    // AWS is away: what is there stays, and other services go on.
    drop(stand);
    agent.renew();
    eventually("the files are renewed", || {
        ready(&agent, "app-files").is_some()
    });
    assert!(ready(&agent, "prod").is_some());
}
