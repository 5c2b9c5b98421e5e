//! The container that a process is in, by its cgroups.
//!
//! The kernel alone says in which cgroups a process is, and only privilege moves it
//! into another: `/proc/PID/cgroup` is the truth about containers. Mounts are not:
//! every user can make a mount namespace in which `/sys/fs/cgroup` or `/etc/hosts`
//! are another container's. But part of the tree of cgroups may be *delegated* to
//! somebody without privilege (a user's service manager, a container with a writable
//! cgroup file system), who names cgroups there as he likes. So of several containers
//! on one path the outermost counts, one whose name may be somebody else's is marked
//! ([`Container::delegated`]), and who relies on the answer asks for more: the
//! engine where the container is, Kubernetes that nothing is delegated above. Root in
//! a container of LXC, whose cgroup has a name and no id, is such a somebody too: for a
//! pod, every name on the path must be one that the kubelet or systemd gives.
//!
//! Layouts: v1, v2 and both at once; names by systemd or by plain paths; seen from
//! the host or, with `..`, from inside another cgroup namespace.

use std::sync::LazyLock;

use crate::{
    process::{Process, ProcessError},
    procfs::{CgroupPath, Mount, cgroup},
};

#[cfg(test)]
mod tests;

/// Prefixes of the names that runtimes give to cgroups of containers. Their helpers
/// outside of the container (`conmon`) have others.
const PREFIXES: [&str; 7] = [
    "docker-",
    "libpod-",
    "libpod-payload-",
    "cri-containerd-",
    "crio-",
    "containerd-",
    "nerdctl-",
];

/// A container, as cgroups tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id: 64 hexadecimal digits in lower case.
    pub id: String,
    /// The UID of the pod that holds it, if its cgroup says so.
    pub pod_uid: Option<String>,
    /// Whether the path is that of a pod of Kubernetes: the pod is below `kubepods`, or
    /// seen from the inside of another pod.
    pub in_kubernetes: bool,
    /// Whether somebody else may have named it: it is below a systemd service or scope,
    /// so whoever runs that unit; or it is that of a pod, below a name that neither the
    /// kubelet nor systemd gives, so whoever runs what has that name.
    pub delegated: bool,
    /// Its cgroup in each hierarchy that names it.
    pub cgroups: Vec<(u32, String)>,
}

impl Container {
    /// The container of a process with these cgroups, none if it is in none.
    ///
    /// # Errors
    ///
    /// If two hierarchies name different containers.
    pub fn of(paths: &[CgroupPath]) -> Result<Option<Self>, Ambiguous> {
        let mut found: Option<Self> = None;
        for path in paths {
            let Some(new) = Self::on(path) else { continue };
            match &mut found {
                None => found = Some(new),
                Some(there) if there.id != new.id => {
                    return Err(Ambiguous {
                        one: there.id.clone(),
                        other: new.id,
                    });
                }
                Some(there) => {
                    if there.pod_uid.is_some()
                        && new.pod_uid.is_some()
                        && there.pod_uid != new.pod_uid
                    {
                        return Err(Ambiguous {
                            one: format!("{} in pod {:?}", there.id, there.pod_uid),
                            other: format!("{} in pod {:?}", new.id, new.pod_uid),
                        });
                    }
                    // One hierarchy that is out of reach of users vouches for all, and one that
                    // knows nothing of pods not for a pod.
                    let is_pod = |path: &Self| path.in_kubernetes && !path.delegated;
                    let vouched = is_pod(there) || is_pod(&new);
                    there.in_kubernetes |= new.in_kubernetes;
                    there.delegated = match there.in_kubernetes {
                        true => !vouched,
                        false => there.delegated && new.delegated,
                    };
                    there.pod_uid = there.pod_uid.take().or(new.pod_uid);
                    there.cgroups.extend(new.cgroups);
                }
            }
        }
        Ok(found)
    }

    /// As [`Self::of`], seen by an agent with the cgroups `own`. If both are in one
    /// container, that is their machine (a node of `kind`, which keeps the cgroups of its
    /// host) and the container looked for is inside of it, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::of`].
    pub fn beside(paths: &[CgroupPath], own: &[CgroupPath]) -> Result<Option<Self>, Ambiguous> {
        let found = Self::of(paths)?;
        let (Some(outer), Ok(Some(machine))) = (&found, Self::of(own)) else {
            return Ok(found);
        };
        if outer.cgroups.is_empty() || outer.cgroups != machine.cgroups {
            return Ok(found);
        }
        let inside: Vec<CgroupPath> = paths
            .iter()
            .filter_map(|path| {
                let (_, root) = machine
                    .cgroups
                    .iter()
                    .find(|(hierarchy, _)| *hierarchy == path.hierarchy)?;
                let rest = path.path.strip_prefix(root.as_str())?;
                Some(CgroupPath {
                    path: rest.to_owned(),
                    ..path.clone()
                })
            })
            .collect();
        Ok(Self::of(&inside)?.or(found))
    }

    /// The outermost container on one path.
    fn on(path: &CgroupPath) -> Option<Self> {
        let mut pod_uid = None;
        let from_inside = path.path.starts_with("/../");
        let (mut below_kubepods, mut below_unit, mut below_other) = (from_inside, false, false);
        let mut end = 0;
        for name in path.path.split('/').skip(1) {
            end += 1 + name.len();
            // containerd without systemd's help: `SLICE:cri-containerd:ID`.
            let (slice, id) = match name.rsplit_once(':') {
                Some((rest, id)) => (rest.split(':').next().unwrap_or(rest), id),
                None => (name, name),
            };
            below_kubepods |= slice.contains("kubepods");
            if pod_uid.is_none() {
                pod_uid = pod_of(slice);
            }
            if let Some(id) = id_of(id) {
                let in_kubernetes = below_kubepods && (pod_uid.is_some() || from_inside);
                return Some(Self {
                    id: id.to_owned(),
                    in_kubernetes,
                    pod_uid,
                    delegated: below_unit || (in_kubernetes && below_other),
                    cgroups: vec![(path.hierarchy, path.path[..end].to_owned())],
                });
            }
            below_unit |= name.ends_with(".service") || name.ends_with(".scope");
            below_other |= !leads_to_pod(name);
        }
        None
    }
}

/// Where a process is, as far as containers are concerned.
#[derive(Debug)]
pub(crate) enum Place {
    /// In this container.
    In(Container),
    /// In none, or in that of the agent.
    Here,
    /// In no container, and outside of the agent's cgroup namespace.
    Outside,
}

impl Place {
    /// The place of this process now.
    pub(crate) fn of(process: &Process) -> Result<Self, PlaceError> {
        static OWN: LazyLock<Vec<CgroupPath>> = LazyLock::new(|| {
            let bytes = std::fs::read("/proc/self/cgroup").unwrap_or_default();
            cgroup(&bytes).unwrap_or_default()
        });
        let paths = cgroup(&process.read("cgroup")?).map_err(ProcessError::from)?;
        Ok(match Container::beside(&paths, &OWN)? {
            Some(container) => Self::In(container),
            None if paths.iter().any(|path| path.path.starts_with("/..")) => Self::Outside,
            None => Self::Here,
        })
    }
}

/// Why the place of a process is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
}

/// Two hierarchies of cgroups name two containers, so neither is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its cgroups name two containers, {one} and {other}")]
pub struct Ambiguous {
    one: String,
    other: String,
}

/// The id in the name of a container's cgroup.
fn id_of(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = PREFIXES
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .min_by_key(|rest| rest.len())
        .unwrap_or(name);
    is_id(id).then_some(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the kubelet, or systemd for it, gives this name to a cgroup that has pods
/// below it.
fn leads_to_pod(name: &str) -> bool {
    name.ends_with(".slice")
        || ["..", "kubelet", "kubepods", "burstable", "besteffort"].contains(&name)
        || pod_of(name).is_some()
}

/// The UID in the name of a pod's cgroup: `podUID`, or `kubepods-CLASS-podUID.slice`
/// with `_` for `-`. Pods from files of the kubelet have 32 digits without dashes.
fn pod_of(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(stem) if stem.contains("kubepods") => stem.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_uid = match uid.len() {
        32 => digits(&uid),
        36 => uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && uid.split('-').all(digits),
        _ => false,
    };
    is_uid.then_some(uid)
}

/// The container that the agent itself is in, by the files that an engine mounts into
/// every container: `/etc/hostname` and its neighbours come from a folder named by
/// the id. Only for the agent's own mounts.
pub fn own_container(mounts: &[Mount]) -> Option<String> {
    mounts
        .iter()
        .filter(|mount| {
            ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&&*mount.mount_point)
        })
        .find_map(|mount| {
            let mut names = mount.root.split('/');
            // Docker; Podman, Buildah, CRI-O.
            names.find(|name| {
                ["containers", "overlay-containers", "vfs-containers"].contains(name)
            })?;
            names.next().filter(|name| is_id(name)).map(str::to_owned)
        })
}
