use std::{path::Path, time::Duration};

use attest::sigstore::{Prefix, SigstoreConfig};

use super::super::tests::read;

#[test]
fn each_key_is_read() {
    let text = "docker: {}\nsigstore:\n  \
                additional_registries: [{host: ghcr.io}, {host: 'registry.example:5000'}]\n  \
                insecure_registries: ['127.0.0.1:5000']\n  \
                allowed_private_network_prefixes: [10.7.0.0/16, 'fd00::/8', 192.168.1.9]\n  \
                credentials_path: /etc/tbot-proxy/docker.json\n  \
                ca_path: /etc/tbot-proxy/registry-ca.pem\n  \
                time_limit: 7s\n  kept_for: 30m\n";
    let config = read(text).unwrap().sigstore.unwrap();
    let networks = ["10.7.0.0/16", "fd00::/8", "192.168.1.9/32"];
    let networks = networks.map(|text| text.parse::<Prefix>().unwrap());
    assert_eq!(config.registries, ["ghcr.io", "registry.example:5000"]);
    assert_eq!(config.insecure_registries, ["127.0.0.1:5000"]);
    assert_eq!(config.allowed_networks, networks);
    let credentials = Path::new("/etc/tbot-proxy/docker.json");
    assert_eq!(config.credentials.as_deref(), Some(credentials));
    let ca = Path::new("/etc/tbot-proxy/registry-ca.pem");
    assert_eq!(config.ca.as_deref(), Some(ca));
    assert_eq!(config.time_limit, Duration::from_secs(7));
    assert_eq!(config.kept_for, Duration::from_secs(30 * 60));
}

#[test]
fn it_is_off_unless_named() {
    let sigstore = |text: &str| read(text).unwrap().sigstore;
    assert_eq!(sigstore("docker: {}"), None);
    assert_eq!(sigstore("docker: {}\nsigstore: {enabled: false}"), None);
    // Switched off it asks for nothing beside it.
    assert_eq!(sigstore("sigstore: {enabled: false, ca_path: /ca}"), None);
    let default = Some(SigstoreConfig::default());
    for on in ["{}", "{enabled: true}"] {
        for of in [
            "docker: {}",
            "podman: {}",
            "kubernetes: {kubelet: {host: a}}",
        ] {
            assert_eq!(sigstore(&format!("{of}\nsigstore: {on}")), default);
        }
    }
}

/// A mistake is told at its line, with what to write in its place.
#[test]
fn what_makes_no_sense_is_told_at_its_place() {
    for (key, line, expected) in [
        (
            "additional_registries: [{host: a.example},\n    {host: 'https://b.example'}]",
            4,
            "`host`: `https://b.example` is no host of a registry: write ghcr.io or \
             registry.example:5000",
        ),
        ("additional_registries:\n  - {}", 4, "missing key `host`"),
        (
            "additional_registries: [ghcr.io]",
            3,
            "`additional_registries`: expected a mapping",
        ),
        (
            "insecure_registries: ['a.example/team']",
            3,
            "`a.example/team` is no host of a registry: write ghcr.io",
        ),
        (
            "insecure_registries: a.example",
            3,
            "`insecure_registries`: expected a sequence",
        ),
        (
            "allowed_private_network_prefixes:\n  - 10.0.0.0/8\n  - 10.1.2.3/16",
            5,
            "`10.1.2.3/16` is no network: write its first address and the length, as 10.1.0.0/16",
        ),
        (
            "allowed_private_network_prefixes: [internal.example]",
            3,
            "`internal.example` is no network",
        ),
        (
            "time_limit: 2m",
            3,
            "`time_limit`: 2m is out of range: from 100ms to 1m",
        ),
        (
            "kept_for: 1s",
            3,
            "`kept_for`: 1s is out of range: from 10s to",
        ),
        ("kept_for: long", 3, "`kept_for`"),
        ("enabled: perhaps", 3, "`enabled`"),
        ("ca_path: [/a, /b]", 3, "`ca_path`: expected a single value"),
        ("credential_path: /a", 3, "did you mean `credentials_path`"),
        ("ca: /a", 3, "`ca`"),
    ] {
        let error = read(&format!("podman: {{}}\nsigstore:\n  {key}\n")).unwrap_err();
        let place = format!("f:{line}:");
        assert!(
            error.starts_with(&place) && error.contains(expected),
            "{key}: {error}"
        );
    }
    let error = read("unix: {}\nsigstore:\n  ca_path: /ca\n").unwrap_err();
    assert!(error.starts_with("f:3:"), "{error}");
    assert!(error.contains("name `docker`, `podman` or"), "{error}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "podman: {}\nsigstore:\n  kept_for: 1s\n  insecure_registries: ['/']\n";
    let error = read(text).unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(error.contains("f:3:") && error.contains("f:4:"), "{error}");
}
