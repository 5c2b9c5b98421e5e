//! `CreateSession` is signed as AWS describes it: a stand-in written from that description
//! (`tests/peers/rolesanywhere.py`, Python `cryptography`) verifies it, over TLS.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use identity::testing::TestCa;
use output::aws::{Arn, CreateSession, Endpoint, SignedRequest};

const PREFIX: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:";

struct Stand {
    process: Child,
    home: tempfile::TempDir,
    port: u16,
}

impl Stand {
    /// `None`, said loudly, without Python's `cryptography`.
    fn start(anchor: &TestCa) -> Option<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = package.join("../../target/peers/bin/python");
        if !python.exists() {
            eprintln!("SKIPPED: there is no {}: make peers", python.display());
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let server = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: String| -> PathBuf {
            fs::write(home.path().join(name), text).unwrap();
            home.path().join(name)
        };
        let mut process = Command::new(python)
            .arg(package.join("tests/peers/rolesanywhere.py"))
            .arg(file("ca.pem", server.cert.pem()))
            .arg(file("key.pem", server.signing_key.serialize_pem()))
            .arg(file("anchor.pem", anchor.bundle().to_pem()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Some(Self {
            port: line.trim().parse().unwrap(),
            process,
            home,
        })
    }

    fn endpoint(&self) -> Endpoint {
        let address = format!("https://localhost:{}", self.port);
        Endpoint::new(Some(&address), Some(&self.home.path().join("ca.pem"))).unwrap()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn session() -> CreateSession {
    let ours = |kind: &str| Arn::parse(&format!("{PREFIX}{kind}/1f2e"), "rolesanywhere", kind);
    CreateSession {
        role: Arn::parse("arn:aws:iam::123456789012:role/app", "iam", "role").unwrap(),
        profile: ours("profile").unwrap(),
        trust_anchor: ours("trust-anchor").unwrap(),
        region: None,
        duration: Some(Duration::from_secs(1_800)),
        session_name: Some("app".to_owned()),
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn the_signature_is_what_aws_describes() {
    let ca = TestCa::new("td.example");
    let Some(stand) = Stand::start(&ca) else {
        return;
    };
    let (endpoint, now) = (stand.endpoint(), SystemTime::now());
    // Several keys: signatures have several lengths, serial numbers too.
    for round in 0..20 {
        let issuer = if round % 2 == 0 {
            &ca
        } else {
            &ca.intermediate()
        };
        let svid = issuer.svid("/app", HOUR);
        let credentials = session().call(&svid, &endpoint, now).await.unwrap();
        let life = credentials.expires().duration_since(now).unwrap();
        assert!((1_700..=1_860).contains(&life.as_secs()), "{life:?}");
        let json = credentials.to_process_json();
        let token = STANDARD.encode("spiffe://td.example/app");
        assert!(json.contains(&format!("\"SessionToken\":\"{token}\"")));
        assert!(json.contains("\"SecretAccessKey\":\"secret/of+eu-central-1\""));
    }
}

#[tokio::test]
async fn what_aws_would_refuse_is_refused_and_told() {
    let ca = TestCa::new("td.example");
    let Some(stand) = Stand::start(&ca) else {
        return;
    };
    let (endpoint, now) = (stand.endpoint(), SystemTime::now());
    let stranger = TestCa::new("td.example").svid("/app", HOUR);
    let refused = session().call(&stranger, &endpoint, now).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "AWS refuses CreateSession (HTTP 403): Untrusted certificate. Insufficient certificate chain"
    );
    let svid = ca.svid("/app", HOUR);
    let early = now - HOUR;
    let refused = session().call(&svid, &endpoint, early).await.unwrap_err();
    assert!(
        refused.to_string().contains("Signature expired"),
        "{refused}"
    );

    // The stand-in looks: each part that is changed after signing is noticed.
    let signed = session().signed(&svid, "localhost", now).unwrap();
    let send = async |change: &dyn Fn(&mut SignedRequest)| {
        let mut changed = signed.clone();
        change(&mut changed);
        let mut request = http::Request::post(format!("https://localhost:{}/sessions", stand.port));
        for (name, value) in &changed.headers {
            request = request.header(*name, value);
        }
        let pem = fs::read(stand.home.path().join("ca.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let client = http_client::Client::with_roots(roots, identity::tls::provider()).unwrap();
        let answer = client
            .send(request.body(changed.body.into()).unwrap())
            .await;
        answer.unwrap().status().as_u16()
    };
    assert_eq!(send(&|_| {}).await, 201);
    assert_eq!(send(&|request| request.body.push(b' ')).await, 403);
    let other = |name: &'static str, value: &'static str| {
        move |request: &mut SignedRequest| {
            let headers = request.headers.iter_mut();
            headers
                .filter(|(its, _)| *its == name)
                .for_each(|(_, its)| *its = value.to_owned());
        }
    };
    assert_eq!(send(&other("host", "elsewhere")).await, 403);
    assert_eq!(send(&other("content-type", "text/plain")).await, 403);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let ca = TestCa::new("td.example");
    let Some(stand) = Stand::start(&ca) else {
        return;
    };
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = stand.home.path().join("other.pem");
    fs::write(&path, other.cert.pem()).unwrap();
    let address = format!("https://localhost:{}", stand.port);
    let endpoint = Endpoint::new(Some(&address), Some(&path)).unwrap();
    let svid = ca.svid("/app", HOUR);
    let error = session()
        .call(&svid, &endpoint, SystemTime::now())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be asked"), "{error}");
    assert!(Endpoint::new(Some("http://localhost"), None).is_err());
}

/// The stand-in itself: it takes what the client of AWS's own samples sends, which works with
/// AWS, and which is built on botocore's canonical requests.
#[tokio::test]
async fn the_stand_in_takes_what_a_client_of_aws_sends() {
    const CLIENT: &str = "
import sys
from iam_rolesanywhere_session import IAMRolesAnywhereSession
port, home, profile, role, anchor = sys.argv[1:]
session = IAMRolesAnywhereSession(
    profile_arn=profile, role_arn=role, trust_anchor_arn=anchor,
    certificate=home + '/leaf.pem', certificate_chain=home + '/chain.pem', private_key=home + '/leaf.key',
    region='eu-central-1', endpoint='localhost:' + port, verify=home + '/ca.pem', session_duration=1800,
)
print(session.get_session().get_credentials().get_frozen_credentials().secret_key)
";
    let ca = TestCa::new("td.example");
    let Some(stand) = Stand::start(&ca) else {
        return;
    };
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/bin/python");
    let has = Command::new(&python)
        .args(["-c", "import iam_rolesanywhere_session"])
        .status();
    if !has.unwrap().success() {
        eprintln!("SKIPPED: there is no iam_rolesanywhere_session: make peers");
        return;
    }
    let svid = ca.intermediate().svid("/app", HOUR);
    let home = stand.home.path();
    let pem = identity::certificates_pem;
    fs::write(home.join("leaf.pem"), pem(&svid.chain()[..1])).unwrap();
    fs::write(home.join("chain.pem"), pem(&svid.chain()[1..])).unwrap();
    fs::write(home.join("leaf.key"), svid.key_pem().as_bytes()).unwrap();
    let session = session();
    let client = Command::new(&python)
        .args(["-c", CLIENT, &stand.port.to_string()])
        .arg(home)
        .args([
            session.profile.as_str(),
            session.role.as_str(),
            session.trust_anchor.as_str(),
        ])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&client.stderr);
    assert_eq!(
        String::from_utf8_lossy(&client.stdout).trim(),
        "secret/of+eu-central-1",
        "{error}"
    );
}
