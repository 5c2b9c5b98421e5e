//! OpenSSL, Go's standard library and Python's `cryptography` and PyJWT accept every
//! shape of leaf, and every kind of JWT, by the CA that signed and by the CA before it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use identity::{JwtClaims, SpiffeId, TrustDomain};
use issuer::{
    authority::{
        KeyState, KeyUse, Keyring, LeafTemplate, Lifecycle, Rotation, Subject, SubjectKey,
        keyfile::SealingKey,
    },
    resources::{DnsName, JwtAlgorithm},
};
use rustls::pki_types::CertificateDer;

use super::harness::TRUST_DOMAIN;

const HOUR: Duration = Duration::from_secs(3600);
const AUDIENCE: &str = "https://db.example.org";

/// A keyring just after a rotation of its CA, and the CA before it.
fn rotated(home: &Path) -> (Keyring, CertificateDer<'static>) {
    let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let sealing = SealingKey::open(&home.join("kek"), true).unwrap();
    let lifecycle = Lifecycle::default();
    let make = |key_use, state, now| {
        let rotation = Rotation {
            trust_domain: &trust_domain,
            sealing: &sealing,
            lifecycle,
            user: "test",
            now,
        };
        rotation.make(key_use, state).unwrap()
    };
    let now = SystemTime::now();
    let old = make(KeyUse::X509, KeyState::Retired, now - HOUR);
    let certificate = CertificateDer::from(old.certificate.clone());
    let mut stored = vec![old];
    stored.extend(
        lifecycle
            .uses()
            .map(|key_use| make(key_use, KeyState::Active, now)),
    );
    let keyring = Keyring::open(&trust_domain, &stored, &sealing, lifecycle, 1).unwrap();
    (keyring, certificate)
}

/// `leaf-KEY-SHAPE.pem` of each kind of key in each shape; their names.
fn write_leaves(keyring: &Keyring, folder: &Path) -> Vec<String> {
    let id = SpiffeId::new(keyring.trust_domain(), "/apps/web").unwrap();
    let subject = Subject::new("web é", "Example, Inc.", "Operations + more").unwrap();
    let addresses = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let names = ["web.example.org"].map(|name| DnsName::parse(name).unwrap());
    let validity = keyring.validity(SystemTime::now(), HOUR).unwrap();
    let mut written = Vec::new();
    for (kind, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("rsa", &rcgen::PKCS_RSA_SHA256),
        ("ed25519", &rcgen::PKCS_ED25519),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let key = SubjectKey::from_csr(&super::harness::csr(&key)).unwrap();
        let bare = || LeafTemplate::new(&id, &key, validity);
        let shapes = [
            ("bare", bare()),
            (
                "named",
                LeafTemplate {
                    subject: Some(&subject),
                    ..bare()
                },
            ),
            (
                "full",
                LeafTemplate {
                    subject: Some(&subject),
                    dns_sans: &names,
                    ip_sans: &addresses,
                    ..bare()
                },
            ),
            (
                "nameless",
                LeafTemplate {
                    dns_sans: &names,
                    ip_sans: &addresses,
                    ..bare()
                },
            ),
        ];
        for (shape, template) in shapes {
            let leaf = keyring.sign_leaf(&template).unwrap();
            let name = format!("leaf-{kind}-{shape}.pem");
            write_pem(&folder.join(&name), &leaf.certificate);
            written.push(name);
        }
    }
    written
}

fn write_pem(path: &Path, der: &CertificateDer<'_>) {
    std::fs::write(path.with_extension("der"), der).unwrap();
    run(Command::new("openssl")
        .args(["x509", "-inform", "DER", "-in"])
        .arg(path.with_extension("der"))
        .arg("-out")
        .arg(path));
}

fn write_tokens(keyring: &Keyring, folder: &Path) {
    let id = SpiffeId::new(keyring.trust_domain(), "/apps/web").unwrap();
    let now = SystemTime::now();
    for algorithm in [JwtAlgorithm::Es256, JwtAlgorithm::Rs256] {
        let claims = JwtClaims::new(&id, &[AUDIENCE], now, now + HOUR)
            .unwrap()
            .not_before(now)
            .token_id("0a1b2c")
            .issuer("https://issuer.example.org");
        let token = keyring.sign_jwt(algorithm, &claims).unwrap().token;
        std::fs::write(folder.join(format!("{}.jwt", algorithm.as_str())), token).unwrap();
    }
    let keys = keyring.bundle().to_jwks_for_jwt();
    std::fs::write(folder.join("jwks.json"), keys).unwrap();
}

/// A folder for each CA that a peer may know: the one that signs, and the one before it.
fn folders(home: &Path) -> Vec<(PathBuf, Vec<String>)> {
    let (keyring, old) = rotated(home);
    [("new", keyring.x509().certificate()), ("old", &old)]
        .into_iter()
        .map(|(name, ca)| {
            let folder = home.join(name);
            std::fs::create_dir(&folder).unwrap();
            write_pem(&folder.join("ca.pem"), ca);
            write_pem(&folder.join("cross.pem"), &keyring.own_chain()[0]);
            write_tokens(&keyring, &folder);
            let leaves = write_leaves(&keyring, &folder);
            (folder, leaves)
        })
        .collect()
}

/// A program of the peers' folder, which `make peers` fills.
fn peer(name: &str) -> Command {
    let program = peers().join("bin").join(name);
    assert!(program.exists(), "no {program:?}: `make peers` installs it");
    Command::new(program)
}

fn peers() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_issuer"));
    target.ancestors().nth(2).unwrap().join("peers")
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/peers")
        .join(name)
}

/// Runs what must succeed; its standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn openssl_accepts_every_leaf() {
    let home = tempfile::tempdir().unwrap();
    for (folder, leaves) in folders(home.path()) {
        for (leaf, purpose) in leaves
            .iter()
            .flat_map(|leaf| [(leaf, "sslserver"), (leaf, "sslclient")])
        {
            run(Command::new("openssl")
                .args([
                    "verify",
                    "-x509_strict",
                    "-check_ss_sig",
                    "-purpose",
                    purpose,
                ])
                .args(["-CAfile", "ca.pem", "-untrusted", "cross.pem"])
                .arg(leaf)
                .current_dir(&folder));
        }
    }
}

#[test]
fn go_accepts_every_leaf_and_token() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("accept");
    run(peer("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(source("accept.go"))
        .env("GOCACHE", peers().join("go-cache"))
        .env("GOTOOLCHAIN", "local")
        .env("GO111MODULE", "off")
        .env("GOPROXY", "off")
        .env("CGO_ENABLED", "0"));
    for (folder, leaves) in folders(home.path()) {
        let told = run(Command::new(&program).arg(&folder));
        for leaf in leaves {
            let line = told.lines().find(|line| line.starts_with(&leaf));
            let line = line.unwrap_or_else(|| panic!("{leaf}: {told}"));
            assert!(line.contains("spiffe://test.example/apps/web"), "{line}");
            let full = leaf.contains("full") || leaf.contains("nameless");
            assert_eq!(line.contains("[web.example.org]"), full, "{line}");
            assert_eq!(line.contains("[192.0.2.7 2001:db8::7]"), full, "{line}");
        }
        for algorithm in ["ES256", "RS256"] {
            let line = format!("{algorithm} spiffe://test.example/apps/web");
            assert!(told.contains(&line), "{told}");
        }
    }
}

#[test]
fn python_accepts_every_leaf_and_token() {
    let home = tempfile::tempdir().unwrap();
    for (folder, leaves) in folders(home.path()) {
        let told = run(peer("python").arg(source("accept.py")).arg(&folder));
        assert_eq!(told.lines().count(), leaves.len() + 2, "{told}");
        for algorithm in ["ES256", "RS256"] {
            let line = format!("{algorithm} spiffe://test.example/apps/web");
            assert!(told.contains(&line), "{told}");
        }
    }
}
