use super::{CgroupPath, Stat, Status, cgroup, mountinfo, stat, status};

#[test]
fn stat_is_read_behind_whatever_name_a_program_gave_itself() {
    let rest = "S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 10 11";
    for name in [
        "cat",
        "",
        "a b",
        ")",
        "x) R 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 99",
        "(((",
        "a\nb",
    ] {
        let file = format!("77 ({name}) {rest}\n");
        let expected = Stat {
            start_time: 4242,
            state: b'S',
        };
        assert_eq!(stat(file.as_bytes()), Ok(expected), "{file}");
    }
    let binary = [&b"77 (\xff\xfe\0) "[..], rest.as_bytes()].concat();
    assert_eq!(stat(&binary).unwrap().start_time, 4242);
}

#[test]
fn a_stat_that_is_cut_or_odd_is_an_error() {
    for file in [
        "",
        "77 cat S 1",
        "77 (cat)",
        "77 (cat) S 1 2 3",
        "77 (cat) SS 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242",
        "77 (cat) S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 -42",
        "77 (cat) S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99999999999999999999",
    ] {
        assert!(stat(file.as_bytes()).is_err(), "{file}");
    }
}

#[test]
fn status_gives_effective_ids_and_groups() {
    // Linux 6.1; names end with an escaped line end that looks like ids.
    let file = "Name:\tx\\nUid:\\t0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t812\nNgid:\t0\n\
        Pid:\t812\nPPid:\t1\nTracerPid:\t0\nUid:\t1000\t1001\t1002\t1003\n\
        Gid:\t2000\t2001\t2002\t2003\nFDSize:\t64\nGroups:\t4 27 1000 \nNStgid:\t812\t7\n\
        VmPeak:\t    2916 kB\n";
    let expected = Status {
        uid: 1001,
        gid: 2001,
        groups: vec![4, 27, 1000],
    };
    assert_eq!(status(file.as_bytes()), Ok(expected));
    let none = "Uid:\t0\t0\t0\t0\nGid:\t4294967295\t4294967295\t0\t0\nGroups:\t \n";
    let expected = Status {
        uid: 0,
        gid: u32::MAX,
        groups: vec![],
    };
    assert_eq!(status(none.as_bytes()), Ok(expected));
}

/// With subordinate ids there can be 65,536, and each costs memory for as long as the
/// process is connected.
#[test]
fn a_process_of_too_many_groups_is_nobody() {
    let file = |groups: usize| {
        let groups = "4294967294 ".repeat(groups);
        format!("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t{groups}\n")
    };
    assert_eq!(status(file(1_024).as_bytes()).unwrap().groups.len(), 1_024);
    for groups in [1_025, 65_536] {
        let error = status(file(groups).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("more than 1,024"), "{error}");
    }
}

#[test]
fn a_status_that_is_cut_or_odd_is_an_error() {
    for file in [
        "",
        "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
        "Uid:\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n",
        "Uid:\t0\t-1\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n",
        "Uid:\t0\t4294967296\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n",
        "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t4 x\n",
        "Uid:\t0\t0\t0\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t4\n",
    ] {
        assert!(status(file.as_bytes()).is_err(), "{file}");
    }
}

#[test]
fn cgroup_paths_are_whatever_was_named_so() {
    let file = "12:cpu,cpuacct:/docker/0123\n1:name=systemd:/a:b/c d\n0::/x (deleted)\n";
    let path = |hierarchy, controllers: &str, path: &str| CgroupPath {
        hierarchy,
        controllers: controllers.to_owned(),
        path: path.to_owned(),
    };
    let expected = vec![
        path(12, "cpu,cpuacct", "/docker/0123"),
        path(1, "name=systemd", "/a:b/c d"),
        path(0, "", "/x"),
    ];
    assert_eq!(cgroup(file.as_bytes()), Ok(expected));
    assert_eq!(cgroup(b""), Ok(vec![]));
    for file in [
        "0:/",
        "x::/",
        "-1::/",
        "0::relative",
        "0::",
        "99999999999::/",
    ] {
        assert!(cgroup(file.as_bytes()).is_err(), "{file}");
    }
    assert!(cgroup(b"0::/\xff\n").is_err());
}

#[test]
fn mounts_are_read_with_their_escapes_and_optional_fields() {
    let file = br"22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt/a\040b\134c rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw
84 83 0:29 /docker/x /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate
";
    let mounts = mountinfo(file).unwrap();
    let all: Vec<_> = mounts
        .iter()
        .map(|mount| (&*mount.root, &*mount.mount_point, &*mount.file_system))
        .collect();
    assert_eq!(
        all,
        [
            ("/", "/proc", "proc"),
            ("/mnt1", "/mnt/a b\\c", "ext3"),
            ("/docker/x", "/sys/fs/cgroup", "cgroup2"),
        ]
    );
    assert_eq!(mountinfo(b"").unwrap(), []);
    assert!(
        !mountinfo(&std::fs::read("/proc/self/mountinfo").unwrap())
            .unwrap()
            .is_empty()
    );
    for file in [
        &b"x"[..],
        b"22 27 0:21 /",
        b"22 27 0:21 / /proc rw,relatime",
        b"22 27 0:21 / /proc rw,relatime -",
        b"22 27 0:21 / /proc\\377 rw,relatime - proc proc rw",
    ] {
        assert!(
            mountinfo(file).is_err(),
            "{}",
            String::from_utf8_lossy(file)
        );
    }
}
