//! Whoever does not answer costs its own attributes, and no more time than the limit.

use std::{
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use attest::{Config, EngineConfig, KubeletVerification, KubernetesConfig};
use serde_json::json;

use super::support::{Cgroup, Running, attest, is_root, reasons, unified};

#[tokio::test]
async fn an_attestor_that_hangs_ends_at_its_limit_and_the_others_answer() {
    if !is_root() {
        return;
    }
    let Some(root) = unified() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // Listens, takes connections into its queue, and never answers.
    let _listener = UnixListener::bind(&path).unwrap();
    let kubelet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kubernetes =
        KubernetesConfig::new(format!("https://{}", kubelet.local_addr().unwrap()));
    kubernetes.token = None;
    kubernetes.verification = KubeletVerification::None;

    let mut config = Config::default();
    config.docker = Some(EngineConfig::new(&path));
    config.podman = Some(EngineConfig::new(&path));
    config.kubernetes = Some(kubernetes);
    config.time_limit = Duration::from_millis(300);
    let id = "a".repeat(64);
    let child = Running::sleep();
    let pod = "6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e";
    let cgroup = Cgroup::new(&root, &format!("/N.slice/kubepods/pod{pod}/{id}"));
    cgroup.hold(child.pid());

    let start = Instant::now();
    let found = attest(config, child.pid()).await;
    assert!(start.elapsed() < Duration::from_secs(20), "side by side");
    assert_eq!(found.attributes["unix"]["attested"], json!(true));
    assert_eq!(found.attributes.as_object().unwrap().len(), 1, "{found:?}");
    for attestor in ["docker", "podman", "kubernetes"] {
        let reason = reasons(&found, attestor);
        assert!(
            ["within", "waited"]
                .iter()
                .any(|word| reason.contains(word)),
            "{attestor}: {reason}"
        );
    }
}
