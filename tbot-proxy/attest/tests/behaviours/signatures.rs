//! What is signed for the image of a real container, in a registry of others: over TLS, for
//! whoever has the password. It keeps no list of referrers, so clients keep one under a tag.

use std::{fs, path::Path, time::Duration};

use attest::{Attestation, Attestors, Config, EngineConfig, Process, sigstore::signatures_of};
use e2e::{Image, Podman, Registry, SigningKey};
use serde_json::{Value, json};

use super::support::{Listener, assert_in_schema, program_with_connect, reasons};

/// Connects and stays.
const STAY: &str = "s = connect(); time.sleep(1000)";
const LIMIT: Duration = Duration::from_secs(60);

/// A process in a new container of this image.
fn contained(podman: &Podman, image: &Image) -> Process {
    let listener = Listener::new();
    let volume = format!("--volume={}:/agent", listener.folder.path().display());
    let program = program_with_connect(Path::new("/agent/socket"), STAY);
    let program = ["/usr/bin/python3", "-c", &program];
    podman.container_of(&image.name, &["--detach", &volume], &program);
    Process::of_peer(listener.accept()).unwrap()
}

/// With all that this registry asks for.
fn config(podman: &Podman, registry: &Registry) -> Config {
    let mut config = Config::default();
    config.podman = Some(EngineConfig::new(podman.socket()));
    config.time_limit = LIMIT;
    let mut sigstore = attest::sigstore::SigstoreConfig::default();
    sigstore.ca = Some(registry.authority());
    sigstore.credentials = Some(registry.credentials());
    sigstore.allowed_networks = vec![registry.network().parse().unwrap()];
    sigstore.time_limit = LIMIT;
    sigstore.kept_for = Duration::ZERO;
    config.sigstore = Some(sigstore);
    config
}

fn count(attestation: &Attestation) -> &Value {
    &attestation.attributes["sigstore"]["signature_count"]
}

#[tokio::test]
async fn signatures_are_found_in_a_real_registry() {
    let (Some(podman), Some(mut registry)) = (Podman::start(), Registry::start()) else {
        return;
    };
    let [signed, unsigned] = registry.take(&podman, ["acme/signed", "acme/unsigned"]);
    let key = SigningKey::generate();
    registry.sign(&signed, &key);
    registry.attest(&signed, &key, "https://slsa.dev/provenance/v1", 100);

    let attestors = Attestors::new(config(&podman, &registry));
    let process = contained(&podman, &signed);
    let found = attestors.attest(&process).await;
    assert_eq!(found.failures, [], "{found:?}");
    assert_in_schema(&found.attributes);
    let group = &found.attributes["sigstore"];
    assert_eq!(group["image_digest"], json!(signed.digest));
    assert_eq!(count(&found), &json!(2), "{found:?}");
    let held = signatures_of(&found.attributes).unwrap();
    let bundle: Value = serde_json::from_slice(&held[0].bundle).unwrap();
    assert!(bundle["dsseEnvelope"]["payload"].is_string(), "{bundle}");
    let simple: Value = serde_json::from_slice(&held[1].simple_signing).unwrap();
    let named = &simple["critical"]["image"]["docker-manifest-digest"];
    assert_eq!(named, &json!(signed.digest));

    // The same image where nobody signed it.
    assert_eq!(signed.digest, unsigned.digest);
    let other = contained(&podman, &unsigned);
    let nothing = attestors.attest(&other).await;
    assert_eq!(nothing.failures, [], "{nothing:?}");
    assert_eq!(count(&nothing), &json!(0), "{nothing:?}");

    registry.end();
    let kept = attestors.attest(&process).await;
    assert_eq!(kept.attributes["sigstore"], *group);
    assert!(reasons(&kept, "sigstore").contains("found before"));
}

#[tokio::test]
async fn a_registry_that_may_not_be_read_leaves_nothing_and_says_why() {
    let (Some(podman), Some(registry)) = (Podman::start(), Registry::start()) else {
        return;
    };
    let [image] = registry.take(&podman, ["acme/signed"]);
    let process = contained(&podman, &image);
    let good = config(&podman, &registry);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        Some(file)
    };
    let wrong = format!(
        r#"{{"auths":{{"{}":{{"auth":"dGVzdGVyOndyb25n"}}}}}}"#,
        registry.host()
    );
    let wrong = file("wrong.json", &wrong);
    let empty = file("empty.pem", "# nothing\n");
    type Change<'a> = &'a dyn Fn(&mut attest::sigstore::SigstoreConfig);
    let cases: [(&str, Change<'_>); 6] = [
        ("UnknownIssuer", &|sigstore| sigstore.ca = None),
        ("empty.pem: it holds no certificate", &|sigstore| {
            sigstore.ca.clone_from(&empty);
        }),
        ("absent.pem", &|sigstore| {
            sigstore.ca = Some(folder.path().join("absent.pem"));
        }),
        ("wants a password", &|sigstore| sigstore.credentials = None),
        ("status 401", &|sigstore| {
            sigstore.credentials.clone_from(&wrong);
        }),
        ("allowed_private_network_prefixes", &|sigstore| {
            sigstore.allowed_networks.clear();
        }),
    ];
    for (why, change) in cases {
        let mut config = good.clone();
        change(config.sigstore.as_mut().unwrap());
        let found = Attestors::new(config).attest(&process).await;
        assert_eq!(found.attributes.get("sigstore"), None, "{why}");
        assert_eq!(found.attributes["podman"]["attested"], json!(true), "{why}");
        let told = reasons(&found, "sigstore");
        assert!(told.contains(why), "{why}: {told}");
        assert!(told.contains(&image.digest), "{told}");
        assert!(!told.contains("secret") && !told.contains("dGVz"), "{told}");
    }
}
