//! Any bytes as `/proc/PID/mountinfo`: what is read has a type and both paths, and the
//! agent's own container, if any, is an id.

#![no_main]

use attest::{container::own_container, procfs::mountinfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mounts) = mountinfo(data) else { return };
    let lines = data
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    assert_eq!(mounts.len(), lines.count());
    if let Some(id) = own_container(&mounts) {
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(mounts.iter().any(|mount| mount.root.contains(&id)));
    }
});
