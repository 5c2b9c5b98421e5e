//! What an operator sees of attestation: times and failures, by attestor.

use attest::{Attestors, Config, EngineConfig, Process, SystemdConfig};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::support::{Cgroup, Running, is_root, unified};

#[test]
fn times_and_failures_are_counted_by_attestor() {
    if !is_root() {
        return;
    }
    let Some(root) = unified() else { return };
    let child = Running::sleep();
    let cgroup = Cgroup::new(&root, &format!("/N/docker/{}", "a".repeat(64)));
    cgroup.hold(child.pid());
    let mut config = Config::default();
    // Two attributes absent, one failure.
    config.unix.max_hashed = 1;
    config.systemd = Some(SystemdConfig::default());
    config.docker = Some(EngineConfig::new("/nonexistent/docker.sock"));
    let process = Process::of_pid(child.pid()).unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let attestors = Attestors::new(config);
            for _ in 0..3 {
                attestors.attest(&process).await;
            }
        });
    });
    let text = metrics.render();
    for line in [
        "tbot_attestation_failures_total{attestor=\"unix\"} 3",
        "tbot_attestation_failures_total{attestor=\"docker\"} 3",
        "tbot_attestation_seconds_count{attestor=\"unix\"} 3",
        "tbot_attestation_seconds_count{attestor=\"systemd\"} 3",
        "tbot_attestation_seconds_count{attestor=\"docker\"} 3",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    // In no unit: that is no failure.
    assert!(
        !text.contains("failures_total{attestor=\"systemd\"}"),
        "{text}"
    );
}
