//! Containers of Podman with runc, attested from the host through a socket that is
//! mounted into them. Podman's API answers as Docker's too.

use std::{fs, path::Path, process::Command, time::Duration};

use attest::{Attestors, Config, EngineConfig, Process, SystemdConfig};
use e2e::Podman;
use serde_json::{Value, json};

use super::support::{
    Cgroup, Listener, Running, assert_in_schema, program_with_connect, reasons, unified,
};

/// Connects and stays.
const STAY: &str = "s = connect(); time.sleep(1000)";

/// Starts a container with a Python program that has `connect()` to a socket of the test.
/// Its id.
fn start(podman: &Podman, listener: &Listener, options: &[&str], program: &str) -> String {
    let volume = format!("--volume={}:/agent", listener.folder.path().display());
    let program = program_with_connect(Path::new("/agent/socket"), program);
    let options = [&["--detach", &*volume], options].concat();
    podman.container(&options, &["/usr/bin/python3", "-c", &program])
}

fn both(socket: &Path) -> Config {
    let mut config = Config::default();
    config.systemd = Some(SystemdConfig::default());
    config.docker = Some(EngineConfig::new(socket));
    config.podman = Some(EngineConfig::new(socket));
    config
}

#[tokio::test]
async fn a_process_in_a_container_is_attested_from_the_host() {
    let Some(podman) = Podman::start() else {
        return;
    };
    let listener = Listener::new();
    podman.run(&[
        "pod",
        "create",
        "--infra=false",
        "--label=tier=back",
        "--name=shop",
    ]);
    let options = [
        "--pod=shop",
        "--name=web",
        "--label=app=web",
        "--user=1234:2345",
    ];
    let id = start(&podman, &listener, &options, STAY);
    let process = Process::of_peer(listener.accept()).unwrap();
    let found = Attestors::new(both(&podman.socket()))
        .attest(&process)
        .await;

    let digest = podman.run(&["inspect", "--format={{.ImageDigest}}", &id]);
    let container = json!({
        "name": "web",
        "image": "localhost/e2e:1",
        "image_digest": digest,
        "labels": {"app": "web"},
    });
    assert_eq!(
        found.attributes["podman"],
        json!({
            "attested": true,
            "container": container,
            "pod": {"name": "shop", "labels": {"tier": "back"}},
        }),
        "{found:?}"
    );
    assert_eq!(
        found.attributes["docker"],
        json!({"attested": true, "container": container}),
        "{found:?}"
    );
    let unix = &found.attributes["unix"];
    assert_eq!((&unix["uid"], &unix["gid"]), (&json!(1234), &json!(2345)));
    assert_eq!(unix["pid"], json!(process.pid()));
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    assert_eq!(unix["binary_path"], json!(python));
    assert_in_schema(&found.attributes);
    assert_eq!(found.failures, [], "{found:?}");
}

#[tokio::test]
async fn a_container_without_a_pod_has_none() {
    let Some(podman) = Podman::start() else {
        return;
    };
    let listener = Listener::new();
    start(
        &podman,
        &listener,
        &["--name=alone", "--cgroupns=private"],
        STAY,
    );
    let process = Process::of_peer(listener.accept()).unwrap();
    let found = Attestors::new(both(&podman.socket()))
        .attest(&process)
        .await;
    assert_eq!(found.attributes["podman"]["container"]["name"], "alone");
    assert_eq!(found.attributes["podman"]["container"]["labels"], json!({}));
    assert_eq!(found.attributes["podman"].get("pod"), None);
    assert_in_schema(&found.attributes);
    // A program of the image: the agent has no such file.
    let listener = Listener::new();
    let exec = "connect(); os.execv('/busybox', ['busybox', 'sleep', '1000'])";
    start(&podman, &listener, &[], exec);
    let process = Process::of_peer(listener.accept()).unwrap();
    while process.read("comm").unwrap() != b"busybox\n" {
        tokio::task::yield_now().await;
    }
    for (foreign, path) in [(false, Value::Null), (true, json!("/busybox"))] {
        let mut config = Config::default();
        config.unix.foreign_paths = foreign;
        let found = Attestors::new(config).attest(&process).await;
        assert_eq!(found.attributes["unix"]["binary_path"], path, "{found:?}");
        let digest = Command::new("sha256sum")
            .arg("/bin/busybox")
            .output()
            .unwrap();
        let digest = String::from_utf8(digest.stdout).unwrap();
        assert_eq!(found.attributes["unix"]["binary_hash"], digest[..64]);
    }
}

#[tokio::test]
async fn what_is_known_of_a_container_is_kept_for_a_while() {
    let Some(mut podman) = Podman::start() else {
        return;
    };
    let listener = Listener::new();
    start(&podman, &listener, &["--name=kept"], STAY);
    let process = Process::of_peer(listener.accept()).unwrap();
    let mut config = Config::default();
    let mut engine = EngineConfig::new(podman.socket());
    engine.kept_for = Duration::from_secs(3600);
    config.podman = Some(engine);
    let attestors = Attestors::new(config.clone());
    let first = attestors.attest(&process).await;
    assert_eq!(first.attributes["podman"]["container"]["name"], "kept");
    podman.end_service();
    let again = attestors.attest(&process).await;
    assert_eq!(again.attributes["podman"], first.attributes["podman"]);
    let new = Attestors::new(config).attest(&process).await;
    assert_eq!(new.attributes.get("podman"), None);
    let reason = reasons(&new, "podman");
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(new.attributes["unix"]["attested"] == json!(true));
}

/// Whose engine is restarted, or hangs, is who it was.
#[tokio::test]
async fn what_is_known_of_a_container_outlives_its_engine_for_a_while() {
    let Some(mut podman) = Podman::start() else {
        return;
    };
    let listener = Listener::new();
    let id = start(&podman, &listener, &["--name=outlives"], STAY);
    let process = Process::of_peer(listener.accept()).unwrap();
    let mut config = Config::default();
    let mut engine = EngineConfig::new(podman.socket());
    engine.kept_for = Duration::ZERO;
    config.podman = Some(engine.clone());
    let attestors = Attestors::new(config.clone());
    engine.kept_when_away = Duration::ZERO;
    config.podman = Some(engine);
    let forgetful = Attestors::new(config);
    let first = attestors.attest(&process).await;
    assert_eq!(first.attributes["podman"]["container"]["name"], "outlives");
    assert!(forgetful.attest(&process).await.attributes["podman"].is_object());

    podman.end_service();
    let again = attestors.attest(&process).await;
    assert_eq!(again.attributes["podman"], first.attributes["podman"]);
    let forgot = forgetful.attest(&process).await;
    assert_eq!(forgot.attributes.get("podman"), None);

    // One that takes connections and does not answer.
    _ = fs::remove_file(podman.socket());
    let _hanging = std::os::unix::net::UnixListener::bind(podman.socket()).unwrap();
    let again = attestors.attest(&process).await;
    assert_eq!(again.attributes["podman"], first.attributes["podman"]);

    // Of a container that it has not told of, nothing is known.
    let other = start(&podman, &listener, &["--name=other"], STAY);
    assert_ne!(other, id);
    let process = Process::of_peer(listener.accept()).unwrap();
    let mut config = Config::default();
    config.podman = Some(EngineConfig::new(podman.socket()));
    config.time_limit = Duration::from_millis(300);
    let unknown = Attestors::new(config).attest(&process).await;
    assert_eq!(unknown.attributes.get("podman"), None);
}

/// A cgroup of the right name somewhere else: who has a part of the tree of cgroups can
/// make it.
#[tokio::test]
async fn a_cgroup_that_is_only_named_as_a_container_s_proves_nothing() {
    let Some(podman) = Podman::start() else {
        return;
    };
    let Some(root) = unified() else { return };
    let listener = Listener::new();
    let id = start(&podman, &listener, &["--name=real"], STAY);
    let real = Process::of_peer(listener.accept()).unwrap();
    let attestors = Attestors::new(both(&podman.socket()));
    let imposter = Running::sleep();
    let forged = Cgroup::new(&root, &format!("/N/libpod-{id}"));
    forged.hold(imposter.pid());
    let process = Process::of_pid(imposter.pid()).unwrap();
    for round in ["new", "kept"] {
        let found = attestors.attest(&process).await;
        assert_eq!(found.attributes.get("podman"), None, "{round}");
        assert_eq!(found.attributes.get("docker"), None, "{round}");
        let reason = reasons(&found, "podman");
        assert!(reason.contains("in another"), "{round}: {reason}");
        let found = attestors.attest(&real).await;
        assert_eq!(found.attributes["podman"]["container"]["name"], "real");
    }
    // An id that the engine does not know.
    let unknown = Cgroup::new(&root, &format!("/N/libpod-{}", "0".repeat(64)));
    unknown.hold(imposter.pid());
    let found = attestors.attest(&process).await;
    assert!(reasons(&found, "docker").contains("Docker has no container 000"));
    assert_eq!(found.failures, [], "it is no failure");
}

/// Mounts are the process's own word: it shows another container's cgroup as its own.
#[tokio::test]
async fn mounts_of_another_container_prove_nothing() {
    let Some(podman) = Podman::start() else {
        return;
    };
    let Some(root) = unified() else { return };
    let listener = Listener::new();
    let id = start(&podman, &listener, &["--name=victim"], STAY);
    drop(listener.accept());
    let cgroup = root.join(format!("libpod_parent/libpod-{id}"));
    assert!(cgroup.exists(), "{}", cgroup.display());
    let files = podman.run(&["inspect", "--format={{.HostnamePath}}", &id]);
    let imposter = Running(
        Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "mount --bind {} {} && mount --bind {files} /etc/hostname && exec sleep 1000",
                cgroup.display(),
                root.display()
            ))
            .spawn()
            .unwrap(),
    );
    let process = Process::of_pid(imposter.pid()).unwrap();
    while process.read("comm").unwrap() != b"sleep\n" {
        tokio::task::yield_now().await;
    }
    let mounts = String::from_utf8(process.read("mountinfo").unwrap()).unwrap();
    assert!(mounts.contains(&format!("libpod-{id} {} ", root.display())));
    let found = Attestors::new(both(&podman.socket()))
        .attest(&process)
        .await;
    assert_eq!(found.attributes.get("podman"), None, "{found:?}");
    assert!(reasons(&found, "podman").contains("in no container"));
}

/// The agent in a cgroup namespace of its own sees containers beside it as `/../…`.
#[tokio::test]
async fn containers_are_attested_from_inside_a_cgroup_namespace() {
    const WORKLOAD: &str = "ATTEST_TEST_WORKLOAD";
    let test = "containers::containers_are_attested_from_inside_a_cgroup_namespace";
    if let Ok(workload) = std::env::var(WORKLOAD) {
        let (pid, socket) = workload.split_once(' ').unwrap();
        let process = Process::of_pid(pid.parse().unwrap()).unwrap();
        let cgroups = String::from_utf8(process.read("cgroup").unwrap()).unwrap();
        assert!(
            cgroups.contains("0::/../../libpod_parent/libpod-"),
            "{cgroups}"
        );
        let found = Attestors::new(both(Path::new(socket)))
            .attest(&process)
            .await;
        assert_eq!(
            found.attributes["podman"]["container"]["name"], "beside",
            "{found:?}"
        );
        assert_eq!(
            found.attributes["docker"]["container"]["name"], "beside",
            "{found:?}"
        );
        return;
    }
    let Some(podman) = Podman::start() else {
        return;
    };
    let Some(root) = unified() else { return };
    let listener = Listener::new();
    start(&podman, &listener, &["--name=beside"], STAY);
    let process = Process::of_peer(listener.accept()).unwrap();
    let own = Cgroup::new(&root, "/N/agent");
    let output = Command::new("sh")
        .args(["-c", "echo $$ > \"$0\"; exec unshare --cgroup \"$@\""])
        .arg(own.procs())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(
            WORKLOAD,
            format!("{} {}", process.pid(), podman.socket().display()),
        )
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
