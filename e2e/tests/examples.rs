//! Every example does what its README says.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use e2e::binary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs `examples/NAME/run.sh` with the programs of this build; what it printed.
#[track_caller]
fn run(name: &str) -> String {
    let script = root().join("examples").join(name).join("run.sh");
    let output = Command::new("bash")
        .arg(&script)
        .env("BIN", binary("issuer").parent().expect("a directory"))
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}\n{errors}");
    said
}

/// A peer that `make peers` installs; false, loudly, without it.
fn has(peer: &str) -> bool {
    let there = root().join("target/peers/bin").join(peer).exists();
    if !there {
        eprintln!("SKIPPED: no target/peers/bin/{peer}: `make peers` installs it");
    }
    there
}

#[test]
fn workload_api_python() {
    if has("python") {
        let said = run("workload-api-python");
        let uid = rustix::process::geteuid().as_raw();
        let id = format!("spiffe://example.test/user/{uid}");
        assert!(
            said.contains(&format!("the server says: hello {id}")),
            "{said}"
        );
        assert!(
            said.contains(&format!("a token of {id} for orders")),
            "{said}"
        );
    }
}

#[test]
fn envoy_sds() {
    if has("envoy") {
        let said = run("envoy-sds");
        assert!(said.contains("served over mutual TLS"), "{said}");
        assert!(
            said.contains("a stranger without an SVID is refused"),
            "{said}"
        );
    }
}

/// There is no cluster here: what can be said without one.
#[test]
fn kubernetes() {
    let example = root().join("examples/kubernetes");
    let checked = Command::new(binary("tbot-proxy"))
        .args(["check", "-c"])
        .arg(example.join("tbot-proxy.yaml"))
        .env("TBOT_NODE_NAME", "node-1")
        .output()
        .expect("tbot-proxy");
    assert!(checked.status.success(), "{checked:?}");
    let issuer = e2e::Issuer::start();
    let resources = example.join("resources.yaml");
    issuer.run(&["apply", "-f", resources.to_str().expect("a path")]);
    if has("kubectl") {
        let built = Command::new(root().join("target/peers/bin/kubectl"))
            .arg("kustomize")
            .arg(example)
            .output()
            .expect("kubectl");
        let said = String::from_utf8_lossy(&built.stdout);
        assert!(built.status.success(), "{built:?}");
        for part in [
            "kind: DaemonSet",
            "kind: ClusterRoleBinding",
            "name: tbot-proxy-",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn systemd_service() {
    let said = run("systemd-service");
    if said.contains("SKIPPED") {
        eprintln!("{said}");
        return;
    }
    assert!(said.contains("spiffe://example.test/orders"), "{said}");
    assert!(said.contains("no identity for this process"), "{said}");
}
