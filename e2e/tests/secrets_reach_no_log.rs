//! With every log turned up to its finest, no token, key or KEK shows in a log,
//! an audit event, a metric or on the command line of a process.

use std::{fs, path::Path};

use e2e::{Agent, EchoServer, Issuer, eventually, free_port, inbound, x509_output};

/// Base64 lines of a PEM key, as needles.
fn key_lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("-----") && line.len() > 20)
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_secret_in_any_output() {
    let issuer = Issuer::start_verbose();
    let token = issuer.register("app");
    let echo = EchoServer::start();
    let out = issuer.home().join("out");
    let agent = Agent::start_verbose(
        &issuer,
        &token,
        &[
            x509_output("app", &out),
            inbound(
                "app",
                free_port(),
                &echo.address(),
                &["spiffe://e2e.example/app"],
            ),
        ],
    );
    let before = fs::read(out.join("svid.pem")).unwrap();
    let mut needles = key_lines(&out.join("svid_key.pem"));
    issuer.run(&["renew-now"]);
    eventually("a rotation", || {
        fs::read(out.join("svid.pem")).unwrap() != before
    });
    needles.extend(key_lines(&out.join("svid_key.pem")));
    needles.push(token);
    assert!(needles.len() >= 5);

    let outputs = [
        ("agent log", agent.log()),
        ("issuer log", issuer.log()),
        ("audit", issuer.run(&["audit", "-o", "json"])),
        ("metrics", agent.get("/metrics").unwrap().1),
        ("readyz", agent.get("/readyz").unwrap().1),
    ];
    assert!(outputs[0].1.contains("TRACE") || outputs[0].1.contains("DEBUG"));
    for (name, text) in outputs {
        for needle in &needles {
            assert!(!text.contains(needle.as_str()), "a secret is in the {name}");
        }
    }
}
