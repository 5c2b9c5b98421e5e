//! OpenSSL, which knows nothing of us, accepts what we sign (`-x509_strict`).

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::harness::{Issuer, block_on, chain, the_svid, x509};

fn pem(path: &Path, der: &[u8]) {
    let raw = path.with_extension("der");
    std::fs::write(&raw, der).unwrap();
    let status = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-in"])
        .arg(raw)
        .arg("-out")
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

fn text(path: &Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(path)
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn leaf_bot_certificate_and_ca_pass_strict_verification() {
    let issuer = Issuer::start();
    issuer.apply(
        "kind: workload_identity\nversion: v1\nmetadata: { name: web, labels: { app: web } }\n\
         spec: { spiffe: { id: /web, x509: { dns_sans: [web.example.org] } } }\n---\n\
         kind: role\nversion: v1\nmetadata: { name: web }\n\
         spec: { allow: { workload_identity_labels: { '*': '*' } } }\n",
    );
    let token = issuer.token("web");
    let (bot, svid) = block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        let svid = issuer.issue(&bot, "web").await.unwrap();
        (bot, svid)
    });
    let home = issuer.home.path();
    let ca = home.join("ca.pem");
    std::fs::write(&ca, issuer.run(&["bundle"])).unwrap();
    for (name, der) in [
        ("svid.pem", &chain(&svid)[0]),
        ("bot.pem", &bot.certificate.chain_der[0]),
    ] {
        let leaf = home.join(name);
        pem(&leaf, der);
        for purpose in ["sslserver", "sslclient"] {
            let output = Command::new("openssl")
                .args([
                    "verify",
                    "-x509_strict",
                    "-check_ss_sig",
                    "-purpose",
                    purpose,
                ])
                .arg("-CAfile")
                .arg(&ca)
                .arg(&leaf)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name} {purpose}: {told}");
        }
    }
    let leaf = text(&home.join("svid.pem"));
    assert!(
        leaf.contains("URI:spiffe://test.example/web, DNS:web.example.org"),
        "{leaf}"
    );
    assert!(
        leaf.contains("X509v3 Subject Alternative Name: critical"),
        "{leaf}"
    );
    let bot = text(&home.join("bot.pem"));
    assert!(bot.contains("1.3.9999.20.1"), "{bot}");
}

#[test]
fn s_client_completes_the_handshake_and_sees_the_authority() {
    let issuer = Issuer::start();
    let ca = issuer.home.path().join("ca.pem");
    std::fs::write(&ca, issuer.run(&["bundle"])).unwrap();
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-alpn",
            "h2",
            "-showcerts",
            "-verify_return_error",
            "-x509_strict",
        ])
        .args(["-connect", &issuer.address, "-CAfile"])
        .arg(&ca)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    assert!(text.contains("ALPN protocol: h2"), "{text}");
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2, "{text}");
}

#[test]
fn keys_of_the_accepted_kinds_are_signed_and_others_refused() {
    use proto::issue::v1::issue_service_client::IssueServiceClient;
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        for (kind, accepted) in [
            (
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
                true,
            ),
            (
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
                true,
            ),
            (
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
                false,
            ),
            (&["-newkey", "rsa:2048"], true),
            (&["-newkey", "rsa:1024"], false),
            (&["-newkey", "ed25519"], true),
        ] {
            let home = issuer.home.path();
            let output = Command::new("openssl")
                .args([
                    "req",
                    "-new",
                    "-nodes",
                    "-outform",
                    "DER",
                    "-subj",
                    "/CN=ignored",
                ])
                .args(["-addext", "subjectAltName=URI:spiffe://test.example/forged"])
                .args(kind)
                .arg("-keyout")
                .arg(home.join("key.pem"))
                .output()
                .unwrap();
            assert!(
                !output.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let request = x509("app", &output.stdout, None);
            let answer = the_svid(client.issue_svids(request).await);
            assert_eq!(answer.is_ok(), accepted, "{kind:?}: {answer:?}");
            if let Ok(svid) = answer {
                let leaf = home.join("leaf.pem");
                pem(&leaf, &chain(&svid)[0]);
                let leaf = text(&leaf);
                // Only the key of the request counts.
                assert!(
                    !leaf.contains("ignored") && !leaf.contains("forged"),
                    "{leaf}"
                );
            }
        }
    });
}
