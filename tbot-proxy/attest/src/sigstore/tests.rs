use std::{collections::HashMap, fs, net::IpAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn names_of_images_are_completed_as_docker_does() {
    for (name, host, repository) in [
        ("nginx", "docker.io", "library/nginx"),
        ("nginx:1.27", "docker.io", "library/nginx"),
        ("docker.io/nginx", "docker.io", "library/nginx"),
        ("acme/app:1", "docker.io", "acme/app"),
        ("ghcr.io/acme/app@sha256:12", "ghcr.io", "acme/app"),
        ("ghcr.io/acme/app:1@sha256:12", "ghcr.io", "acme/app"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app"),
        ("localhost:5000/a/b/c:x", "localhost:5000", "a/b/c"),
    ] {
        let image = Image::parse(name, DIGEST).unwrap();
        assert_eq!(
            (image.host(), image.repository()),
            (host, repository),
            "{name}"
        );
        assert_eq!(image.digest(), DIGEST);
    }
}

#[test]
fn what_leads_elsewhere_is_no_name_of_an_image() {
    for name in [
        "",
        "localhost/app",
        "ghcr.io/../../x",
        "ghcr.io/a?b",
        "ghcr.io/a b",
        "user@evil.example/a",
        "evil.example#/a",
        "ghcr.io/A",
        "ghcr.io//a",
        "ghcr.io/a/",
    ] {
        assert!(Image::parse(name, DIGEST).is_err(), "{name}");
    }
    for digest in [
        "",
        "latest",
        "sha512:00",
        &DIGEST.to_uppercase(),
        &DIGEST[..70],
    ] {
        assert!(Image::parse("app", digest).is_err(), "{digest}");
    }
}

#[test]
fn addresses_inside_of_a_network_are_not_public() {
    let is_public = |text: &str| private::is_public(text.parse::<IpAddr>().unwrap());
    for inside in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001::1",
        "4000::1",
    ] {
        assert!(!is_public(inside), "{inside}");
    }
    for outside in [
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1",
        "::ffff:1.1.1.1",
    ] {
        assert!(is_public(outside), "{outside}");
    }
}

#[test]
fn networks_are_read_and_hold_what_is_in_them() {
    let network = |text: &str| text.parse::<Prefix>();
    let holds =
        |text: &str, address: &str| network(text).unwrap().contains(address.parse().unwrap());
    assert!(holds("10.1.0.0/16", "10.1.255.255") && !holds("10.1.0.0/16", "10.2.0.0"));
    assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
    assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1"));
    assert!(holds("fd00::/8", "fdff::1") && holds("::/0", "::1"));
    for wrong in [
        "",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "::/129",
        "a/8",
        "10.0.0.0/-1",
    ] {
        assert!(network(wrong).is_err(), "{wrong}");
    }
}

/// What cosign 2 keeps in annotations, as a bundle.
#[test]
fn cosigns_annotations_become_a_bundle() {
    let body = json!({"kind": "hashedrekord", "apiVersion": "0.0.1", "spec": {}}).to_string();
    let log = json!({
        "SignedEntryTimestamp": "c2V0",
        "Payload": {
            "body": STANDARD.encode(&body), "integratedTime": 7, "logIndex": 9, "logID": "c0ff",
        },
    });
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    let annotations = [
        ("dev.cosignproject.cosign/signature", "c2ln".to_owned()),
        ("dev.sigstore.cosign/certificate", certificate.pem()),
        ("dev.sigstore.cosign/chain", certificate.pem()),
        ("dev.sigstore.cosign/bundle", log.to_string()),
    ];
    let annotations = annotations
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    let made = signature(b"signed", &annotations).unwrap();
    assert_eq!(made.simple_signing, b"signed");
    let bundle: Value = serde_json::from_slice(&made.bundle).unwrap();
    let material = &bundle["verificationMaterial"];
    assert_eq!(bundle["messageSignature"]["signature"], "c2ln");
    assert_eq!(
        material["x509CertificateChain"]["certificates"],
        json!([{ "rawBytes": STANDARD.encode(certificate.der()) }, { "rawBytes": STANDARD.encode(certificate.der()) }])
    );
    assert_eq!(
        material["tlogEntries"],
        json!([{
            "logIndex": "9",
            "logId": { "keyId": STANDARD.encode([0xc0, 0xff]) },
            "kindVersion": { "kind": "hashedrekord", "version": "0.0.1" },
            "integratedTime": "7",
            "inclusionPromise": { "signedEntryTimestamp": "c2V0" },
            "canonicalizedBody": STANDARD.encode(&body),
        }])
    );
    let made = attestation(br#"{"payload":""}"#, &Default::default()).unwrap();
    let bundle: Value = serde_json::from_slice(&made.bundle).unwrap();
    assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], "");
    assert!(signature(b"signed", &Default::default()).is_err());
    assert!(attestation(b"no envelope", &Default::default()).is_err());
}

/// A registry on loopback: what it serves, by path. With a token only, which it gives to
/// whoever has the password.
struct Stand {
    host: String,
    task: JoinHandle<()>,
}

const PASSWORD: &str = "Basic bmFtZTpwYXNz";

impl Stand {
    async fn serving(contents: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let realm = format!("http://{host}/token");
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap();
                let right = head
                    .lines()
                    .find_map(|line| line.strip_prefix("authorization: "));
                let (status, more, body): (_, String, &[u8]) = match (path, right) {
                    (path, Some(PASSWORD)) if path.starts_with("/token?") => {
                        assert!(
                            path.contains("scope=repository%3Aacme%2Fapp%3Apull"),
                            "{path}"
                        );
                        ("200 OK", String::new(), br#"{"token":"t0k3n"}"#)
                    }
                    (path, Some("Bearer t0k3n")) => match contents.get(path) {
                        Some(body) => match body.strip_prefix(b"-> ") {
                            Some(to) => {
                                let to = String::from_utf8_lossy(to);
                                ("307 Temporary Redirect", format!("location: {to}\r\n"), b"")
                            }
                            None => ("200 OK", String::new(), body),
                        },
                        None => ("404 Not Found", String::new(), b""),
                    },
                    _ => {
                        let asks = format!(
                            "www-authenticate: Bearer realm=\"{realm}\",service=\"test\"\r\n"
                        );
                        ("401 Unauthorized", asks, b"")
                    }
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\n{more}content-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(body).await.unwrap();
            }
        });
        Self { host, task }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn digest_of(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&SHA256, bytes);
    format!("sha256:{}", hex::encode(digest))
}

/// A bundle that refers to the image, a signature and an attestation under cosign's tags.
fn contents() -> HashMap<String, Vec<u8>> {
    let (bundle, signed, envelope) = (br#"{"a":"bundle"}"#, b"signed", br#"{"payload":""}"#);
    let layer = |media_type: &str, bytes: &[u8], annotations: Value| {
        json!({ "layers": [{
            "mediaType": media_type, "digest": digest_of(bytes), "size": bytes.len(),
            "annotations": annotations,
        }] })
        .to_string()
    };
    let of_bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let manifest = layer(of_bundle, bundle, json!({}));
    let index = json!({ "manifests": [
        { "artifactType": of_bundle, "digest": digest_of(manifest.as_bytes()), "size": 1 },
        { "artifactType": "something/else", "digest": digest_of(b"x"), "size": 1 },
    ] });
    let sig = layer(
        "application/vnd.dev.cosign.simplesigning.v1+json",
        signed,
        json!({ "dev.cosignproject.cosign/signature": "c2ln" }),
    );
    let att = layer("application/vnd.dsse.envelope.v1+json", envelope, json!({}));
    let tag = DIGEST.replace(':', "-");
    let mut contents = HashMap::new();
    let mut put = |path: String, bytes: &[u8]| {
        contents.insert(format!("/v2/acme/app/{path}"), bytes.to_vec());
    };
    put(format!("referrers/{DIGEST}"), index.to_string().as_bytes());
    put(
        format!("manifests/{}", digest_of(manifest.as_bytes())),
        manifest.as_bytes(),
    );
    put(format!("manifests/{tag}.sig"), sig.as_bytes());
    put(format!("manifests/{tag}.att"), att.as_bytes());
    for blob in [&bundle[..], signed, envelope] {
        put(format!("blobs/{}", digest_of(blob)), blob);
    }
    contents
}

fn config(stand: &Stand, folder: &std::path::Path) -> SigstoreConfig {
    let file = folder.join("config.json");
    let login = PASSWORD.trim_start_matches("Basic ");
    let text = json!({ "auths": { stand.host.clone(): { "auth": login } } });
    fs::write(&file, text.to_string()).unwrap();
    SigstoreConfig {
        insecure_registries: vec![stand.host.clone()],
        allowed_networks: vec!["127.0.0.1".parse().unwrap()],
        credentials: Some(file),
        time_limit: Duration::from_secs(30),
        ..SigstoreConfig::default()
    }
}

fn workload(host: &str) -> serde_json::Map<String, Value> {
    let container = json!({ "image": format!("{host}/acme/app:1"), "image_digest": DIGEST });
    let workload = json!({ "podman": { "attested": true, "container": container } });
    workload.as_object().unwrap().clone()
}

#[tokio::test]
async fn what_stands_beside_an_image_is_found_and_served_on_without_the_registry() {
    let stand = Stand::serving(contents()).await;
    let folder = tempfile::tempdir().unwrap();
    let sigstore = Sigstore::new(SigstoreConfig {
        kept_for: Duration::ZERO,
        ..config(&stand, folder.path())
    });
    let workload = workload(&stand.host);
    let first = sigstore.attest(&workload).await;
    assert!(first.failures.is_empty(), "{first:?}");
    let group = first.attributes.unwrap();
    assert_eq!(group["image_digest"], DIGEST);
    assert_eq!(group["signature_count"], 3, "{group}");
    let held = signatures_of(&json!({ "sigstore": group })).unwrap();
    assert_eq!(held[0].bundle, br#"{"a":"bundle"}"#);
    assert_eq!(held[1].simple_signing, b"signed");
    drop(stand);
    let again = sigstore.attest(&workload).await;
    assert_eq!(again.attributes, Some(group));
    assert!(again.failures[0].contains("found before"), "{again:?}");
}

#[tokio::test]
async fn what_has_another_digest_is_left_out() {
    let mut contents = contents();
    let changed = |path: &&String| path.contains("/blobs/");
    let paths: Vec<_> = contents.keys().filter(changed).cloned().collect();
    for path in paths {
        contents.insert(path, b"something else".to_vec());
    }
    let stand = Stand::serving(contents).await;
    let folder = tempfile::tempdir().unwrap();
    let found = Sigstore::new(config(&stand, folder.path()));
    let found = found.attest(&workload(&stand.host)).await;
    assert_eq!(found.attributes.unwrap()["signature_count"], 0);
    assert_eq!(found.failures.len(), 3, "{:?}", found.failures);
}

/// Bundles that refer to the image, each of so many bytes.
fn bundles(count: usize, bytes: usize) -> HashMap<String, Vec<u8>> {
    let of_bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let mut contents = HashMap::new();
    let mut listed = Vec::new();
    for number in 0..count {
        let mut bundle = number.to_string().into_bytes();
        bundle.resize(bytes, b'x');
        let layer = json!({ "mediaType": of_bundle, "digest": digest_of(&bundle), "size": bytes });
        let manifest = json!({ "layers": [layer] }).to_string().into_bytes();
        let digest = digest_of(&manifest);
        listed.push(json!({ "artifactType": of_bundle, "digest": digest, "size": 1 }));
        contents.insert(format!("/v2/acme/app/manifests/{digest}"), manifest);
        let digest = digest_of(&bundle);
        contents.insert(format!("/v2/acme/app/blobs/{digest}"), bundle);
    }
    let index = json!({ "manifests": listed }).to_string().into_bytes();
    contents.insert(format!("/v2/acme/app/referrers/{DIGEST}"), index);
    contents
}

#[tokio::test]
async fn as_many_signatures_as_the_issuer_takes_are_sent_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (count, bytes, sent, told) in [
        (MAX_SIGNATURES, 10, MAX_SIGNATURES, 0),
        (MAX_SIGNATURES + 1, 10, MAX_SIGNATURES, 1),
        (2, MAX_BYTES / 2, 2, 0),
        (3, MAX_BYTES / 2, 2, 1),
        // One that is larger than any may be.
        (1, MAX_BYTES / 2 + 1, 0, 1),
    ] {
        let stand = Stand::serving(bundles(count, bytes)).await;
        let found = Sigstore::new(config(&stand, folder.path()));
        let found = found.attest(&workload(&stand.host)).await;
        let group = found.attributes.unwrap();
        let case = format!("{count} of {bytes} bytes: {:?}", found.failures);
        assert_eq!(group["signature_count"], sent, "{case}");
        assert_eq!(found.failures.len(), told, "{case}");
    }
}

#[tokio::test]
async fn a_registry_does_not_lead_into_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let mut contents = contents();
    for (path, body) in &mut contents {
        if path.contains("/blobs/") {
            *body = b"-> https://127.0.0.2:1/secret".to_vec();
        }
    }
    let stand = Stand::serving(contents).await;
    let allowed = config(&stand, folder.path());
    let refused = SigstoreConfig {
        allowed_networks: vec![],
        ..allowed.clone()
    };
    for (config, address) in [(refused, "127.0.0.1"), (allowed, "127.0.0.2")] {
        let found = Sigstore::new(config).attest(&workload(&stand.host)).await;
        assert!(found.attributes.is_none());
        let why = format!("its address {address} may not be connected to");
        assert!(found.failures[0].contains(&why), "{:?}", found.failures);
    }
}

#[tokio::test]
async fn a_redirect_in_the_clear_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let mut contents = contents();
    for (path, body) in &mut contents {
        if path.contains("/blobs/") {
            *body = b"-> http://127.0.0.1:1/".to_vec();
        }
    }
    let stand = Stand::serving(contents).await;
    let found = Sigstore::new(config(&stand, folder.path()));
    let found = found.attest(&workload(&stand.host)).await;
    assert!(
        found.failures[0].contains("in the clear"),
        "{:?}",
        found.failures
    );
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_waited_for_no_longer_than_stated() {
    // Connections are taken by the kernel, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let sigstore = Sigstore::new(SigstoreConfig {
        insecure_registries: vec![host.clone()],
        allowed_networks: vec!["127.0.0.0/8".parse().unwrap()],
        time_limit: Duration::from_millis(50),
        ..SigstoreConfig::default()
    });
    let found = sigstore.attest(&workload(&host)).await;
    assert!(found.attributes.is_none());
    assert!(
        found.failures[0].contains("no answer"),
        "{:?}",
        found.failures
    );
}

#[tokio::test]
async fn a_process_in_no_container_has_no_signatures() {
    let found = Sigstore::new(SigstoreConfig::default());
    let found = found.attest(&serde_json::Map::new()).await;
    assert!(found.not_applicable.is_some() && found.failures.is_empty());
}
