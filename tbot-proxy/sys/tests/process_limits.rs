//! The limits are really those of the process afterwards, as the kernel tells them.

#![allow(clippy::unwrap_used)]

use std::fs;

/// Soft and hard limit of `name`, as `/proc/self/limits` prints them.
fn limit(name: &str) -> (String, String) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
    let mut fields = line[name.len()..].split_whitespace().map(str::to_owned);
    (fields.next().unwrap(), fields.next().unwrap())
}

#[test]
fn the_soft_file_limit_becomes_the_hard_one_and_cores_are_off() {
    let files = sys::raise_file_limit().unwrap();
    let (soft, hard) = limit("Max open files");
    assert_eq!(soft, hard);
    if hard != "unlimited" {
        assert_eq!(files.to_string(), hard);
    }

    sys::harden_process().unwrap();
    assert_eq!(limit("Max core file size"), ("0".into(), "0".into()));
    assert_eq!(
        rustix::process::dumpable_behavior().unwrap(),
        rustix::process::DumpableBehavior::NotDumpable
    );
}

#[test]
fn programs_that_are_started_get_no_capabilities_and_we_keep_ours() {
    use rustix::thread::{
        CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities,
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: to have capabilities needs root");
        return;
    }
    // As systemd's `AmbientCapabilities=` leaves them.
    let mut sets = capabilities(None).unwrap();
    sets.inheritable = CapabilitySet::KILL;
    set_capabilities(None, sets).unwrap();
    configure_capability_in_ambient_set(CapabilitySet::KILL, true).unwrap();
    let of_a_child = |set: &str| {
        let mut cat = std::process::Command::new("cat");
        let status = cat.arg("/proc/self/status").output().unwrap().stdout;
        let status = String::from_utf8(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    };
    assert!(of_a_child("CapAmb:") != 0 && of_a_child("CapInh:") != 0);

    sys::keep_capabilities_from_children().unwrap();
    assert_eq!((of_a_child("CapAmb:"), of_a_child("CapInh:")), (0, 0));
    let now = capabilities(None).unwrap();
    assert_eq!(
        (now.effective, now.permitted),
        (sets.effective, sets.permitted)
    );
}
