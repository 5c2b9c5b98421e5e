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
