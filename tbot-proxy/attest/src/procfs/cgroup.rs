//! `/proc/PID/cgroup`.

use super::ParseError;

/// The place of a process in one hierarchy of cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPath {
    /// The number of the hierarchy; 0 is cgroup v2.
    pub hierarchy: u32,
    /// What the hierarchy is for: names of controllers, `name=systemd`, or empty in v2.
    pub controllers: String,
    /// The path, from the root of the reader's cgroup namespace: it starts with
    /// `/../` for a process outside of it.
    pub path: String,
}

impl CgroupPath {
    /// Whether systemd keeps its units in this hierarchy: the unified one, or
    /// `name=systemd` on hosts in hybrid or v1 mode.
    pub fn is_of_systemd(&self) -> bool {
        self.hierarchy == 0 || self.controllers == "name=systemd"
    }

    /// The names along the path.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter(|name| !name.is_empty())
    }
}

/// Reads `/proc/PID/cgroup` (cgroups(7)): lines `NUMBER:CONTROLLERS:PATH`. A path
/// holds whatever bytes who made the cgroup chose, colons too, but no line end: the
/// kernel escapes those.
pub fn cgroup(bytes: &[u8]) -> Result<Vec<CgroupPath>, ParseError> {
    let error = |what| ParseError {
        file: "cgroup",
        what,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| error("is not UTF-8"))?;
    text.lines()
        .map(|line| {
            let mut parts = line.splitn(3, ':');
            let (Some(number), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err(error("a line is not NUMBER:CONTROLLERS:PATH"));
            };
            if !path.starts_with('/') {
                return Err(error("a path does not start with a slash"));
            }
            Ok(CgroupPath {
                hierarchy: super::number(number.as_bytes())
                    .ok_or_else(|| error("the number of a hierarchy is none"))?,
                controllers: controllers.to_owned(),
                // A cgroup that was removed meanwhile; its process may live on.
                path: path.strip_suffix(" (deleted)").unwrap_or(path).to_owned(),
            })
        })
        .collect()
}
