use super::{NoUnit, Unit, cgroup};

/// As recorded: Debian 12, Ubuntu 20.04 (hybrid), CentOS 7 (v1), a desktop session, a
/// container under systemd, a unit with an escaped name, the agent's own slice.
#[test]
fn the_unit_is_the_first_cgroup_below_the_slices() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "0::/system.slice/postgresql@15-main.service\n",
            "postgresql@15-main.service",
            "system.slice",
        ),
        (
            "12:pids:/system.slice/nginx.service\n3:cpu,cpuacct:/system.slice/nginx.service\n\
             1:name=systemd:/system.slice/nginx.service\n0::/system.slice/nginx.service\n",
            "nginx.service",
            "system.slice",
        ),
        (
            "11:memory:/\n1:name=systemd:/system.slice/sshd.service\n",
            "sshd.service",
            "system.slice",
        ),
        (
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "session-3.scope",
            "user-1000.slice",
        ),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/evil.service\n",
            "user@1000.service",
            "user-1000.slice",
        ),
        (
            "0::/system.slice/docker-0123.scope/init.scope\n",
            "docker-0123.scope",
            "system.slice",
        ),
        (
            "0::/system.slice/_cpu.service\n",
            "cpu.service",
            "system.slice",
        ),
        ("0::/init.scope\n", "init.scope", "-.slice"),
        (
            "0::/system.slice/foo.service/sub (deleted)\n",
            "foo.service",
            "system.slice",
        ),
        // The hierarchy of systemd speaks, whatever the others say.
        (
            "4:memory:/system.slice/other.service\n1:name=systemd:/system.slice/a.service\n0::/\n",
            "a.service",
            "system.slice",
        ),
    ];
    for (file, name, slice) in cases {
        let unit = Unit::of(&cgroup(file.as_bytes()).unwrap()).unwrap();
        assert_eq!((&*unit.name, &*unit.slice), (*name, *slice), "{file}");
    }
}

#[test]
fn what_systemd_did_not_name_is_no_unit() {
    for (file, reason) in [
        ("", "no cgroup hierarchy"),
        ("0::/\n", "in no systemd unit"),
        ("0::/docker/0123\n", "in no systemd unit"),
        // A cgroup that somebody made at the top, with a unit's name below it.
        ("0::/mine/sshd.service\n", "in no systemd unit"),
        ("0::/system.slice\n", "in no systemd unit"),
        ("0::/system.slice/.service\n", "in no systemd unit"),
        ("0::/../system.slice/sshd.service\n", "cgroup namespace"),
        (
            "4:memory:/system.slice/sshd.service\n",
            "no cgroup hierarchy",
        ),
    ] {
        let (NoUnit::Outside(error) | NoUnit::Unknown(error)) =
            Unit::of(&cgroup(file.as_bytes()).unwrap()).unwrap_err();
        assert!(error.contains(reason), "{file}: {error}");
    }
}
