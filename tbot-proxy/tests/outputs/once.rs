//! Outputs that are written once, and who waits for the first write.

use std::{fs, path::Path, process::Command};

use e2e::{Agent, Issuer, binary, inbound, run, run_expecting_failure, x509_output};

use super::output;

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

#[test]
fn a_hook_has_none_of_the_capabilities_of_the_agent() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let once = Once::new(&issuer, &token, |home| {
        let told = home.join("told");
        let hook = format!(
            "grep -e CapInh -e CapAmb /proc/self/status > {}",
            told.display()
        );
        let more = format!("hooks: [{{ command: [sh, -c, \"{hook}\"] }}]");
        vec![output(
            "workload-identity-x509",
            "hooked",
            &home.join("out"),
            &more,
        )]
    });
    // As systemd's `AmbientCapabilities=` has it.
    let mut agent = Command::new("setpriv");
    agent
        .args(["--inh-caps", "+kill", "--ambient-caps", "+kill", "--"])
        .arg(once.command.get_program())
        .args(once.command.get_args())
        .env("TBOT_TOKEN", &token);
    run(&mut agent);
    let told = fs::read_to_string(once.home.path().join("told")).unwrap();
    assert_eq!(
        told,
        "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n"
    );
}
