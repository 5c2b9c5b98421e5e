//! The systemd unit of a process, by its cgroup.
//!
//! systemd puts every process of the host into the cgroup of its unit and lets nobody
//! without privilege move one above that: the names of slices, and of the first
//! cgroup below them, are its word. What comes after may be delegated (to a user's
//! own service manager, to a container runtime) and says nothing here. So a service
//! of a user's manager is `user@1000.service`.

use serde_json::json;

use crate::{
    attestor::Found,
    process::Process,
    procfs::{CgroupPath, cgroup},
};

#[cfg(test)]
mod tests;

/// Types of units that can hold processes (systemd.unit(5)).
const TYPES: [&str; 6] = [".service", ".scope", ".socket", ".mount", ".swap", ".slice"];

/// How systemd units are attested. Nothing to set yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemdConfig {}

#[derive(Debug)]
pub(crate) struct Systemd {}

impl Systemd {
    pub(crate) fn new(_: SystemdConfig) -> Self {
        Self {}
    }

    pub(crate) fn attest(&self, process: &Process) -> Found {
        let paths = match process.read("cgroup").and_then(|bytes| Ok(cgroup(&bytes)?)) {
            Ok(paths) => paths,
            Err(error) => return Found::failed(error),
        };
        match Unit::of(&paths) {
            Ok(unit) => Found {
                attributes: Some(json!({
                    "attested": true,
                    "service": unit.name,
                    "slice": unit.slice,
                })),
                ..Found::default()
            },
            Err(NoUnit::Unknown(reason)) => Found::failed(reason),
            Err(NoUnit::Outside(reason)) => Found::not_applicable(reason),
        }
    }
}

/// Where systemd keeps a process.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    /// `postgresql.service`, `session-3.scope`.
    name: String,
    /// The slice that holds it: `system.slice`; `-.slice` is the root.
    slice: String,
}

impl Unit {
    /// The unit by the hierarchy that systemd uses: `name=systemd` where there is one
    /// (v1 and hybrid mode), else the unified one.
    fn of(paths: &[CgroupPath]) -> Result<Self, NoUnit> {
        let path = paths
            .iter()
            .filter(|path| path.is_of_systemd())
            .max_by_key(|path| path.hierarchy)
            .ok_or_else(|| {
                NoUnit::Unknown("the process is in no cgroup hierarchy of systemd".to_owned())
            })?;
        if path.names().any(|name| name == "..") {
            return Err(NoUnit::Unknown(format!(
                "the process is outside of the agent's cgroup namespace ({}); run the agent in the host's",
                path.path
            )));
        }
        let mut slice = "-.slice";
        for name in path.names() {
            // A leading `_` keeps names apart from files of the kernel.
            let name = name.strip_prefix('_').unwrap_or(name);
            if !TYPES.iter().any(|r#type| {
                name.strip_suffix(r#type)
                    .is_some_and(|stem| !stem.is_empty())
            }) {
                break;
            }
            if !name.ends_with(".slice") {
                return Ok(Self {
                    name: name.to_owned(),
                    slice: slice.to_owned(),
                });
            }
            slice = name;
        }
        Err(NoUnit::Outside(format!(
            "the process is in no systemd unit; its cgroup is {}",
            path.path
        )))
    }
}

/// Why there is no unit.
#[derive(Debug, PartialEq, Eq)]
enum NoUnit {
    /// systemd does not keep the process.
    Outside(String),
    /// It cannot be told.
    Unknown(String),
}
