//! A tree of cgroups as systemd makes it.

use attest::{Config, SystemdConfig};
use serde_json::json;

use super::support::{
    Cgroup, Running, assert_in_schema, attest, hierarchy, is_root, reasons, unified,
};

fn config() -> Config {
    let mut config = Config::default();
    config.systemd = Some(SystemdConfig::default());
    config
}

#[tokio::test]
async fn the_unit_of_a_process_is_that_of_its_cgroup() {
    if !is_root() {
        return;
    }
    let systemd = hierarchy(|_, options| options.contains("name=systemd"));
    let Some(root) = systemd.or_else(unified) else {
        return;
    };
    let child = Running::sleep();
    let name = format!("attest-{}.service", std::process::id());
    for (path, service, slice) in [
        (format!("/system.slice/{name}"), &*name, "system.slice"),
        (
            format!("/system.slice/{name}/inner"),
            &*name,
            "system.slice",
        ),
        (
            format!("/user.slice/user-4242.slice/user@4242.service/app.slice/{name}"),
            "user@4242.service",
            "user-4242.slice",
        ),
    ] {
        let cgroup = Cgroup::new(&root, &path);
        cgroup.hold(child.pid());
        let found = attest(config(), child.pid()).await;
        assert_eq!(
            found.attributes["systemd"],
            json!({"attested": true, "service": service, "slice": slice}),
            "{path}"
        );
        assert_in_schema(&found.attributes);
        // Out of it again, so that it can be removed.
        Cgroup::at(&root).hold(child.pid());
    }
    let cgroup = Cgroup::new(&root, "/N/sshd.service");
    cgroup.hold(child.pid());
    let found = attest(config(), child.pid()).await;
    assert_eq!(found.attributes.get("systemd"), None);
    let reason = reasons(&found, "systemd");
    assert!(reason.contains(&cgroup.path), "{reason}");
    assert_eq!(found.failures, []);
}
