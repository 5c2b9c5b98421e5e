//! Credentials of AWS, from a stand-in for Roles Anywhere.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use e2e::{Agent, Issuer, binary, eventually, run, run_expecting_failure, x509_output};
use rustix::process::Signal;

use super::{output, ready};

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
    let renamed = home.path().join("renamed");
    let renamed_output = output(
        "workload-identity-x509",
        "renamed",
        &renamed,
        "file_names: { svid.pem: tls.crt, svid_key.pem: private/tls.key }",
    );
    let x509 = [x509_output("app", &svid), renamed_output];
    let mut agent = Agent::start(&issuer, &token, &x509);
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
    let profiles = [service("prod", "prod"), service("test", "test")];
    agent.write_services(&[&x509[..], &profiles].concat());
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

    let process = |directory: &Path| {
        let mut process = Command::new(binary("tbot-proxy"));
        process
            .args(["aws-credential-process", "--role-arn", role])
            .args(["--profile-arn", &arn("profile")])
            .args(["--trust-anchor-arn", &arn("trust-anchor")])
            .args(["--session-duration", "20m", "--endpoint", &endpoint])
            .arg("--endpoint-ca-path")
            .arg(&ca)
            .arg("--svid-directory")
            .arg(directory);
        process
    };
    let names = ["--svid-name", "tls.crt", "--svid-key-name"];
    let mut of_renamed = process(&renamed);
    of_renamed.args(names).arg("private/tls.key");
    for process in [&mut process(&svid), &mut of_renamed] {
        let printed: serde_json::Value = serde_json::from_str(&run(process)).unwrap();
        assert_eq!(printed["Version"], 1);
        assert_eq!(printed["SecretAccessKey"], "secret/of+eu-central-1");
    }
    botocore_reads(&aws, &process(&svid));
    let exit = run_expecting_failure(&mut process(&renamed));
    assert!(exit.stderr.contains("svid_key.pem"), "{}", exit.stderr);
    let outside = run_expecting_failure(process(&svid).args(names).arg("../key"));
    assert_eq!(outside.code, Some(2), "{}", outside.stderr);
    let twice = run_expecting_failure(process(&svid).args(["--svid-directory", "/no/such"]));
    assert_eq!(twice.code, Some(2), "given twice: {}", twice.stderr);

    // AWS is away: what is there stays, and other services go on.
    drop(stand);
    agent.renew();
    eventually("the files are renewed", || {
        ready(&agent, "app-files").is_some()
    });
    assert!(ready(&agent, "prod").is_some());
}
