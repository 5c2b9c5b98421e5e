//! Pods: real cgroups named as the kubelet names them, and its list from a stand-in.

use std::{path::Path, time::Duration};

use attest::{Attestors, KubeletVerification, Process};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::support::{
    Cgroup, Running, assert_in_schema, is_root,
    kubelet::{Kubelet, only, pod},
    reasons, unified, within,
};

const UID: &str = "6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e";

/// A process in the cgroup of a container of a pod.
struct InPod {
    id: String,
    process: Process,
    _child: Running,
    _cgroup: Cgroup,
}

impl InPod {
    fn new(root: &Path, uid: &str, digit: char) -> Self {
        let id: String = std::iter::repeat_n(digit, 64).collect();
        let child = Running::sleep();
        let path = format!("/N.slice/kubepods/burstable/pod{uid}/{id}");
        let cgroup = Cgroup::new(root, &path);
        cgroup.hold(child.pid());
        Self {
            id,
            process: Process::of_pid(child.pid()).unwrap(),
            _child: child,
            _cgroup: cgroup,
        }
    }
}

macro_rules! root_or_return {
    () => {{
        if !is_root() {
            return;
        }
        let Some(root) = unified() else { return };
        root
    }};
}

#[tokio::test]
async fn a_process_in_a_pod_is_attested() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let workload = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("web-1", UID, Some(&workload.id))]);
    let attestors = Attestors::new(only(kubelet.config()));
    let found = attestors.attest(&workload.process).await;
    assert_eq!(
        found.attributes["kubernetes"],
        json!({
            "attested": true,
            "namespace": "shop",
            "pod_name": "web-1",
            "pod_uid": UID,
            "service_account": "web",
            "labels": {"app": "web-1"},
            "container": {
                "name": "main",
                "image": "registry.example/web:1",
                "image_digest": format!("sha256:{}", "7".repeat(64)),
                "type": "regular",
            },
        }),
        "{found:?}"
    );
    assert_in_schema(&found.attributes);
    assert_eq!(found.failures, []);
    // The test itself is in no pod: that costs no list.
    let own = Process::of_pid(std::process::id()).unwrap();
    let found = attestors.attest(&own).await;
    assert!(reasons(&found, "kubernetes").contains("in no pod"));
    assert_eq!(kubelet.lists(), 1);
}

#[tokio::test]
async fn one_list_serves_everyone_who_asks() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let uids = [UID, "11111111-2222-3333-4444-555555555555"];
    let workloads = [
        InPod::new(&root, uids[0], 'a'),
        InPod::new(&root, uids[1], 'b'),
    ];
    kubelet.set_pods([
        pod("one", uids[0], Some(&workloads[0].id)),
        pod("two", uids[1], Some(&workloads[1].id)),
    ]);
    let attestors = Attestors::new(only(kubelet.config()));
    for _ in 0..3 {
        let all = (0..100).map(|number| attestors.attest(&workloads[number % 2].process));
        for (number, found) in futures_util::future::join_all(all).await.iter().enumerate() {
            let name = ["one", "two"][number % 2];
            assert_eq!(
                found.attributes["kubernetes"]["pod_name"], name,
                "{found:?}"
            );
        }
    }
    assert_eq!(kubelet.lists(), 1);
    // A new pod is a miss: one more list, whoever else asks.
    let third = InPod::new(&root, "99999999-2222-3333-4444-555555555555", 'c');
    kubelet.set_pods([
        pod("one", uids[0], Some(&workloads[0].id)),
        pod(
            "three",
            "99999999-2222-3333-4444-555555555555",
            Some(&third.id),
        ),
    ]);
    let all = (0..100).map(|_| attestors.attest(&third.process));
    for found in futures_util::future::join_all(all).await {
        assert_eq!(
            found.attributes["kubernetes"]["pod_name"], "three",
            "{found:?}"
        );
    }
    assert_eq!(kubelet.lists(), 2);
}

#[tokio::test]
async fn a_container_whose_status_lags_is_waited_for() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let workload = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("web", UID, None)]);
    let mut config = kubelet.config();
    config.min_interval = Duration::from_millis(10);
    let attestors = Attestors::new(only(config.clone()));
    let attest = attestors.attest(&workload.process);
    let (found, ()) = tokio::join!(within(attest), async {
        // Looked twice in vain.
        kubelet.asked().await;
        kubelet.asked().await;
        kubelet.set_pods([pod("web", UID, Some(&workload.id))]);
    });
    assert_eq!(
        found.attributes["kubernetes"]["pod_name"], "web",
        "{found:?}"
    );
    assert!(kubelet.lists() >= 3);

    // And no longer than it is worth.
    kubelet.set_pods([pod("web", UID, None)]);
    config.patience = Duration::from_millis(100);
    let found = Attestors::new(only(config)).attest(&workload.process).await;
    assert_eq!(found.attributes.get("kubernetes"), None);
    let reason = reasons(&found, "kubernetes");
    assert!(reason.contains("no status of its container"), "{reason}");
}

#[tokio::test]
async fn labels_that_change_are_seen_when_the_list_is_old() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let workload = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("before", UID, Some(&workload.id))]);
    let mut config = kubelet.config();
    config.kept_for = Duration::ZERO;
    config.min_interval = Duration::ZERO;
    let attestors = Attestors::new(only(config));
    attestors.attest(&workload.process).await;
    kubelet.set_pods([pod("after", UID, Some(&workload.id))]);
    let found = attestors.attest(&workload.process).await;
    assert_eq!(
        found.attributes["kubernetes"]["labels"],
        json!({"app": "after"})
    );
    // The pod is gone from a newer list: what an older one said is over.
    kubelet.set_pods([]);
    let found = attestors.attest(&workload.process).await;
    assert_eq!(found.attributes.get("kubernetes"), None);
}

#[tokio::test]
async fn an_old_list_is_used_while_the_kubelet_is_away_and_not_forever() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let workload = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("web", UID, Some(&workload.id))]);
    let mut config = kubelet.config();
    config.kept_for = Duration::ZERO;
    config.min_interval = Duration::ZERO;
    config.patience = Duration::from_millis(500);
    let attestors = Attestors::new(only(config.clone()));
    attestors.attest(&workload.process).await;
    for hangs in [false, true] {
        kubelet.hang(hangs);
        kubelet.want_token(if hangs { "first" } else { "other" });
        let found = attestors.attest(&workload.process).await;
        assert_eq!(
            found.attributes["kubernetes"]["pod_name"], "web",
            "{found:?}"
        );
    }
    kubelet.hang(false);
    kubelet.want_token("first");
    config.kept_when_away = Duration::ZERO;
    let attestors = Attestors::new(only(config));
    attestors.attest(&workload.process).await;
    kubelet.want_token("other");
    let found = attestors.attest(&workload.process).await;
    assert_eq!(found.attributes.get("kubernetes"), None);
    assert!(reasons(&found, "kubernetes").contains("401"), "{found:?}");
}

#[tokio::test]
async fn the_token_is_read_again_for_each_list() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let workload = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("web", UID, Some(&workload.id))]);
    let mut config = kubelet.config();
    config.kept_for = Duration::ZERO;
    config.kept_when_away = Duration::ZERO;
    config.min_interval = Duration::ZERO;
    let attestors = Attestors::new(only(config));
    for token in ["first", "second"] {
        kubelet.set_token(token);
        let found = attestors.attest(&workload.process).await;
        assert_eq!(
            found.attributes["kubernetes"]["pod_name"], "web",
            "{found:?}"
        );
    }
    std::fs::remove_file(kubelet.file("token")).unwrap();
    let found = attestors.attest(&workload.process).await;
    assert!(reasons(&found, "kubernetes").contains("token"), "{found:?}");
}

#[tokio::test]
async fn another_kubelet_is_not_believed_unless_that_is_configured() {
    let root = root_or_return!();
    let (kubelet, other) = (Kubelet::start().await, Kubelet::start().await);
    let workload = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("web", UID, Some(&workload.id))]);

    let mut foreign_ca = kubelet.config();
    foreign_ca.verification = KubeletVerification::Ca(other.file("ca.crt"));
    let mut other_name = kubelet.config();
    other_name.url = format!("https://127.0.0.1:{}", kubelet.port);
    let mut no_ca = kubelet.config();
    no_ca.verification = KubeletVerification::Ca(kubelet.file("token"));
    for (config, expected) in [
        (foreign_ca, "certificate"),
        (other_name.clone(), "certificate"),
        (no_ca, "holds no certificate"),
    ] {
        let found = Attestors::new(only(config)).attest(&workload.process).await;
        assert_eq!(found.attributes.get("kubernetes"), None);
        let reason = reasons(&found, "kubernetes");
        assert!(reason.contains(expected), "{reason}");
        assert!(!reason.contains("first"), "the token: {reason}");
    }
    assert_eq!(kubelet.lists(), 0);
    other_name.verification = KubeletVerification::None;
    let found = Attestors::new(only(other_name))
        .attest(&workload.process)
        .await;
    assert_eq!(
        found.attributes["kubernetes"]["pod_name"], "web",
        "{found:?}"
    );
}

/// Cgroups of a pod's name where somebody other than the kubelet can make them.
#[tokio::test]
async fn a_pod_s_cgroup_below_a_unit_or_of_another_pod_proves_nothing() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let victim = InPod::new(&root, UID, 'a');
    kubelet.set_pods([pod("web", UID, Some(&victim.id))]);
    let mut config = kubelet.config();
    config.patience = Duration::from_millis(50);
    let attestors = Attestors::new(only(config));
    let id = &victim.id;
    for (path, reason) in [
        (
            format!("/N/user@1000.service/kubepods/pod{UID}/{id}"),
            "below a systemd unit",
        ),
        (
            format!("/N/ci.service/kubepods.slice/kubepods-pod{UID}.slice/crio-{id}.scope"),
            "below a systemd unit",
        ),
        // In an unprivileged container of LXC, whose root makes cgroups.
        (
            format!("/lxc.payload.c1/N/kubepods/pod{UID}/{id}"),
            "a name that is not the kubelet's",
        ),
        // The container's id in another pod's cgroup.
        (
            format!("/N.slice/kubepods/pod99999999-2222-3333-4444-555555555555/{id}"),
            "lists no pod",
        ),
        // Not below `kubepods`.
        (format!("/N/pod{UID}/{id}"), "in no pod"),
        (format!("/N/{id}"), "in no pod"),
    ] {
        let imposter = Running::sleep();
        let cgroup = Cgroup::new(&root, &path);
        cgroup.hold(imposter.pid());
        let process = Process::of_pid(imposter.pid()).unwrap();
        let found = attestors.attest(&process).await;
        assert_eq!(found.attributes.get("kubernetes"), None, "{path}");
        let told = reasons(&found, "kubernetes");
        assert!(told.contains(reason), "{path}: {told}");
        drop(imposter);
    }
}

/// The read-only port is in the clear, so whoever listens there could be anybody.
#[tokio::test]
async fn a_token_is_never_sent_in_the_clear() {
    let root = root_or_return!();
    let kubelet = Kubelet::start().await;
    let workload = InPod::new(&root, UID, 'a');
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = kubelet.config();
    config.url = format!("http://{}", listener.local_addr().unwrap());
    assert!(config.token.is_some());
    let list = json!({"kind": "PodList", "items": [pod("web", UID, Some(&workload.id))]});
    let list = list.to_string();
    let attestors = Attestors::new(only(config));
    let (found, request) = tokio::join!(attestors.attest(&workload.process), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", list.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(list.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    assert_eq!(
        found.attributes["kubernetes"]["pod_name"], "web",
        "{found:?}"
    );
    assert!(request.starts_with("GET /pods HTTP/1.1"), "{request}");
    assert!(
        !request.to_lowercase().contains("authorization"),
        "{request}"
    );
}
