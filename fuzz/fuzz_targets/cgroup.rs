//! Any bytes as `/proc/PID/cgroup`: whoever may make cgroups names them. What is found
//! as a container is an id at the end of a path that the file has, whatever else there
//! is; and the files that name the process itself (`stat`, `status`) are read or refused.

#![no_main]

use attest::{
    container::Container,
    procfs::{cgroup, stat, status},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = stat(data);
    if let Ok(status) = status(data) {
        assert!(status.groups.len() <= data.len());
    }
    let Ok(paths) = cgroup(data) else { return };
    assert!(paths.iter().all(|path| path.path.starts_with('/')));
    let Ok(Some(found)) = Container::of(&paths) else {
        return;
    };
    assert!(found.id.len() == 64 && !found.cgroups.is_empty());
    assert!(
        !found.in_kubernetes || found.pod_uid.is_some() || data.windows(4).any(|w| w == b"/../")
    );
    for (hierarchy, end) in &found.cgroups {
        let on = |path: &&attest::procfs::CgroupPath| {
            path.hierarchy == *hierarchy && path.path.starts_with(end.as_str())
        };
        assert!(paths.iter().any(|path| on(&path)), "{found:?}");
        assert!(end.contains(&found.id), "{found:?}");
    }
    // Beside an agent somewhere else it is the same; beside itself it is inside of it or it.
    assert_eq!(Container::beside(&paths, &[]), Ok(Some(found.clone())));
    if let Ok(inside) = Container::beside(&paths, &paths) {
        assert!(inside.is_some());
    }
});
