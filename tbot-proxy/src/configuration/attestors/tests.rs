use std::{path::Path, time::Duration};

use config::Document;

use super::*;

pub(super) fn read(text: &str) -> Result<Config, String> {
    let documents = Document::parse_all("f", text).unwrap();
    documents[0]
        .resolve(attestors)
        .map_err(|mistakes| mistakes.to_string())
}

#[test]
fn each_attestor_is_off_unless_named_and_unix_is_on() {
    assert_eq!(read("unix: {}").unwrap(), Config::default());
    let all = "systemd: {}\ndocker: {}\npodman: {enabled: true, addr: 'unix:///run/user/1/p.sock'}\n\
         kubernetes: {kubelet: {host: node-1}}\ntime_limit: 3s\n\
         unix: {binary_hash: false, binary_hash_max_size_bytes: 7, foreign_paths: true}\n";
    let config = read(all).unwrap();
    assert!(config.systemd.is_some());
    assert_eq!(config.docker.unwrap().socket, Path::new("/run/docker.sock"));
    assert_eq!(
        config.podman.unwrap().socket,
        Path::new("/run/user/1/p.sock")
    );
    let kubelet = config.kubernetes.unwrap();
    assert_eq!(kubelet, KubernetesConfig::new("https://node-1:10250"));
    assert!(matches!(kubelet.verification, KubeletVerification::Ca(_)));
    assert_eq!(config.time_limit, Duration::from_secs(3));
    assert!(!config.unix.hash && config.unix.max_hashed == 7 && config.unix.foreign_paths);

    let off = "systemd: {enabled: false}\ndocker: {enabled: false}\npodman: {enabled: false}\n\
         kubernetes: {enabled: false}\n";
    assert_eq!(read(off).unwrap(), Config::default());
}

#[test]
fn a_kubelet_is_reached_as_its_ports_and_files_say() {
    let read = |text: &str| {
        let text = format!("kubernetes: {{kubelet: {{{text}}}}}");
        read(&text).unwrap().kubernetes.unwrap()
    };
    let kubelet = read("host: 'fd00::1', secure_port: 1234, token_path: /t, ca_path: /c");
    assert_eq!(kubelet.url, "https://[fd00::1]:1234");
    assert_eq!(kubelet.token.as_deref(), Some(Path::new("/t")));
    assert_eq!(kubelet.verification, KubeletVerification::Ca("/c".into()));
    let kubelet = read("host: 10.0.0.1, skip_verify: true, anonymous: true");
    assert_eq!(kubelet.verification, KubeletVerification::None);
    assert_eq!(kubelet.token, None);
    // The read-only port is in the clear: the token stays here.
    let kubelet = read("read_only_port: 10255");
    assert_eq!(
        (&*kubelet.url, kubelet.token),
        ("http://127.0.0.1:10255", None)
    );
}

#[test]
fn what_makes_no_sense_is_told() {
    for (text, expected) in [
        (
            "docker: {addr: 'tcp://127.0.0.1:2375'}",
            "is no Unix socket",
        ),
        (
            "docker: {addr: 'unix://run/docker.sock'}",
            "is no Unix socket",
        ),
        ("docker: {adr: x}", "adr"),
        ("kubernetes: {}", "which kubelet?"),
        ("kubernetes: {kubelet: {}}", "which kubelet?"),
        ("kubernetes: {kubelet: {host: 'a/b'}}", "is no host"),
        (
            "kubernetes: {kubelet: {host: a, skip_verify: true, ca_path: /c}}",
            "opposites",
        ),
        (
            "kubernetes: {kubelet: {host: a, anonymous: true, token_path: /t}}",
            "opposites",
        ),
        ("time_limit: 1h", "out of range"),
        ("kubelet: {}", "kubelet"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
