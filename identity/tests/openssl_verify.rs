//! OpenSSL accepts our certificates and keys, and we its keys.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/openssl.rs"]
mod openssl;

use std::time::Duration;

use identity::{SvidError, TrustBundle, X509Svid, testing::TestCa};
use openssl::{Files, arg, openssl, text};
use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn openssl_verify_accepts_leaf_and_chain() {
    let root = TestCa::new("example.org");
    for ca in [root.clone(), root.intermediate()] {
        let svid = ca.svid("/web", HOUR);
        let files = Files::new(&svid, &root.bundle());
        for purpose in ["sslserver", "sslclient"] {
            let output = openssl([
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                arg(&files.bundle),
                "-untrusted",
                arg(&files.chain),
                arg(&files.chain),
            ]);
            assert!(output.status.success(), "{purpose}: {}", text(&output));
        }
    }
}

#[test]
fn openssl_reads_id_and_serial_as_we_do() {
    let ca = TestCa::new("example.org");
    let svid = ca.svid("/ns/a/sa/web", HOUR);
    let files = Files::new(&svid, &ca.bundle());
    let output = openssl([
        "x509",
        "-in",
        arg(&files.chain),
        "-noout",
        "-serial",
        "-ext",
        "subjectAltName,basicConstraints,keyUsage",
    ]);
    let text = text(&output);
    assert!(
        text.contains("URI:spiffe://example.org/ns/a/sa/web"),
        "{text}"
    );
    let serial = svid.serial().to_string().to_uppercase();
    assert!(text.contains(&format!("serial={serial}")), "{text}");
    assert!(text.contains("X509v3 Key Usage: critical"), "{text}");
    assert!(text.contains("CA:FALSE"), "{text}");
}

#[test]
fn openssl_reads_the_bundle_that_we_wrote_from_json() {
    let ca = TestCa::new("example.org");
    let json = ca.bundle().to_spiffe_json();
    let bundle = TrustBundle::from_spiffe_json(ca.trust_domain().clone(), &json).unwrap();
    let files = Files::new(&ca.svid("/web", HOUR), &bundle);
    let output = openssl(["verify", "-CAfile", arg(&files.bundle), arg(&files.chain)]);
    assert!(output.status.success(), "{}", text(&output));
}

/// Keys of every encoding that OpenSSL writes: PKCS#8, SEC1, PKCS#1.
#[test]
fn keys_in_all_encodings_become_pkcs8() {
    let cases: [(&str, &[&str], &str); 6] = [
        (
            "P-256 PKCS#8",
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ],
            "BEGIN PRIVATE KEY",
        ),
        (
            "P-256 SEC1",
            &["ecparam", "-name", "prime256v1", "-genkey", "-noout"],
            "BEGIN EC PRIVATE KEY",
        ),
        (
            "P-384 SEC1",
            &["ecparam", "-name", "secp384r1", "-genkey", "-noout"],
            "BEGIN EC PRIVATE KEY",
        ),
        (
            "RSA PKCS#8",
            &[
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
            ],
            "BEGIN PRIVATE KEY",
        ),
        (
            "RSA PKCS#1",
            &["genrsa", "-traditional", "2048"],
            "BEGIN RSA PRIVATE KEY",
        ),
        (
            "Ed25519 PKCS#8",
            &["genpkey", "-algorithm", "ED25519"],
            "BEGIN PRIVATE KEY",
        ),
    ];
    let ca = TestCa::new("example.org");
    let dir = tempfile::tempdir().unwrap();
    let (key_file, out_file) = (dir.path().join("key.pem"), dir.path().join("out.pem"));
    let public = |file| {
        let output = openssl(["pkey", "-in", arg(file), "-pubout"]);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, command, label) in cases {
        let generated = openssl(command.iter().copied());
        assert!(generated.status.success(), "{name}: {}", text(&generated));
        let key_pem = String::from_utf8(generated.stdout).unwrap();
        assert!(
            key_pem.contains(label),
            "{name}: OpenSSL wrote something else"
        );
        std::fs::write(&key_file, &key_pem).unwrap();
        let spki = SubjectPublicKeyInfo::from_pem(&public(&key_file)).unwrap();
        assert!(!spki.der_bytes().is_empty());
        let chain = ca.issue_for(&spki, "/web", |_| {});
        let chain_pem = TestPem(&chain).to_string();
        let svid = X509Svid::from_pem(chain_pem.as_bytes(), key_pem.as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(svid.key_pem().contains("BEGIN PRIVATE KEY"), "{name}");
        std::fs::write(&out_file, svid.key_pem().as_bytes()).unwrap();
        assert_eq!(public(&out_file), public(&key_file), "{name}");
    }
}

#[test]
fn encrypted_and_unusual_keys_are_refused_clearly() {
    let svid = TestCa::new("example.org").svid("/web", HOUR);
    let cases: [(&[&str], &str); 2] = [
        (
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-aes256",
                "-pass",
                "pass:x",
            ],
            "it is encrypted",
        ),
        (
            &["genpkey", "-algorithm", "ED448"],
            "it is not an unencrypted ECDSA",
        ),
    ];
    for (command, reason) in cases {
        let output = openssl(command.iter().copied());
        assert!(output.status.success(), "{}", text(&output));
        let error = X509Svid::from_pem(svid.chain_pem().as_bytes(), &output.stdout).unwrap_err();
        assert!(matches!(
            error,
            SvidError::KeyPem { .. } | SvidError::Key { .. }
        ));
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// Certificates as PEM, by OpenSSL's own rules (64 characters a line).
struct TestPem<'a>(&'a [rustls::pki_types::CertificateDer<'static>]);

impl std::fmt::Display for TestPem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        for der in self.0 {
            let body = STANDARD.encode(der);
            writeln!(f, "-----BEGIN CERTIFICATE-----")?;
            for line in body.as_bytes().chunks(64) {
                writeln!(f, "{}", String::from_utf8_lossy(line))?;
            }
            writeln!(f, "-----END CERTIFICATE-----")?;
        }
        Ok(())
    }
}
