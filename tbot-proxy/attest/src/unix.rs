//! The process itself: user, groups, executable.
//!
//! The executable is a file, not a path: it is opened through `/proc/PID/exe`, which
//! leads to the very file that runs, whatever stands at its path today. Its path is
//! only reported if the agent finds the same file there: in a mount namespace of its
//! own, which every user can make, a process may give its program any path.

use std::{io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Instant};

use serde_json::{Map, Value, json};
use tokio::{task::spawn_blocking, time::timeout_at};

use crate::{
    Owners,
    attestor::Found,
    process::{Process, ProcessError, link_at},
};

mod executable;
mod hash;
mod places;
#[cfg(test)]
mod tests;

use self::{
    executable::Executable,
    hash::Hashes,
    places::{Place, Places},
};

/// Executables looked at at one time, of all users and of one. One on a file system
/// that hangs holds its place until it answers; the others go on.
const LOOKS: (usize, usize) = (16, 4);
/// Executables hashed at one time, of all users and of one. A user can make large ones
/// that are never known: they take the time of his own other processes only.
const HASHED: (usize, usize) = (16, 2);

/// How a process itself is attested.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnixConfig {
    /// Whether the executable is hashed. Default: yes.
    pub hash: bool,
    /// The largest executable that is hashed, in bytes. Default: 1 GiB.
    pub max_hashed: u64,
    /// How many hashes are kept. Default: 1,024.
    pub kept_hashes: usize,
    /// Whether `binary_path` is reported too if the agent finds another file or none
    /// under it: the path is then the process's own word. For agents that see the
    /// workloads' files in another place than they do, as one in a container of its
    /// own. Default: no.
    pub foreign_paths: bool,
}

impl Default for UnixConfig {
    fn default() -> Self {
        Self {
            hash: true,
            max_hashed: 1 << 30,
            kept_hashes: 1024,
            foreign_paths: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Unix {
    config: UnixConfig,
    hashes: Arc<Hashes>,
    looks: Places,
    hashed: Places,
    owners: Owners,
}

impl Unix {
    pub(crate) fn new(config: UnixConfig) -> Self {
        Self {
            hashes: Arc::new(Hashes::new(config.kept_hashes, config.max_hashed)),
            looks: Places::new(LOOKS.0, LOOKS.1),
            hashed: Places::new(HASHED.0, HASHED.1),
            owners: Owners::default(),
            config,
        }
    }

    pub(crate) async fn attest(&self, process: &Process, deadline: Instant) -> Found {
        let status = match process.status() {
            Ok(status) => status,
            Err(error) => return Found::failed(error),
        };
        let mut attributes = Map::from_iter([
            ("attested".to_owned(), json!(true)),
            ("pid".to_owned(), json!(process.pid())),
            ("uid".to_owned(), json!(status.uid)),
            ("gid".to_owned(), json!(status.gid)),
            (
                "supplementary_groups".to_owned(),
                status.groups.iter().map(u32::to_string).collect(),
            ),
        ]);
        let mut failures = Vec::new();
        let mut set = |name: &str, value: Result<String, String>| match value {
            Ok(value) => {
                attributes.insert(name.to_owned(), Value::String(value));
            }
            Err(reason) => failures.push(format!("{name}: {reason}")),
        };
        let user = self.owners.owner(status.uid);
        match self.executable(process, user, deadline).await {
            Ok(executable) => {
                set("binary_path", executable.path);
                if let Some(hash) = executable.hash {
                    set("binary_hash", hash);
                }
            }
            Err(reason) => failures.push(format!("binary_path, binary_hash: {reason}")),
        }
        // User and executable were read one after the other: they belong together if
        // the user is still the same.
        match process.status() {
            Ok(again) if again == status => Found {
                attributes: Some(Value::Object(attributes)),
                failures,
                ..Found::default()
            },
            Ok(_) => Found::failed(ProcessChanged),
            Err(error) => Found::failed(error),
        }
    }

    /// Looks at the executable on a thread that may block, until shortly before the
    /// deadline: the rest of the facts must not be lost with it, nor the path with the
    /// hash.
    async fn executable(
        &self,
        process: &Process,
        user: u32,
        deadline: Instant,
    ) -> Result<Seen, String> {
        let now = Instant::now();
        let limit = deadline.saturating_duration_since(now).mul_f32(0.9);
        let deadline = tokio::time::Instant::from_std(now + limit);
        let late = |_| {
            format!(
                "no answer within {limit:?}: its file system hangs, or other executables of its \
                 user take the time"
            )
        };
        let (directory, pid) = (process.directory(), process.pid());
        let (config, hashes) = (self.config.clone(), Arc::clone(&self.hashes));
        let look = in_place(&self.looks, user, move || {
            let executable = Executable::open(&directory, pid)?;
            let path = path(&directory, pid, &executable, config.foreign_paths);
            let known = match config.hash {
                true => hashes.known(&executable).transpose(),
                false => None,
            };
            Ok((path, known, (config.hash).then_some(executable)))
        });
        let (path, known, executable) = timeout_at(deadline, look).await.map_err(late)??;
        let (None, Some(executable)) = (&known, executable) else {
            return Ok(Seen { path, hash: known });
        };
        let hashes = Arc::clone(&self.hashes);
        let hash = in_place(&self.hashed, user, move || hashes.hash(&executable));
        let hash = timeout_at(deadline, hash).await.map_err(late);
        Ok(Seen {
            path,
            hash: Some(hash.flatten()),
        })
    }
}

/// Does this on a thread that may block, in one of the user's places. Who stops to wait
/// before it has begun has not begun it; afterwards it keeps its place until it ends.
async fn in_place<T: Send + 'static>(
    places: &Places,
    user: u32,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let place: Place = (places.take(user).await).map_err(|error| error.to_string())?;
    spawn_blocking(move || {
        let _place = place;
        work()
    })
    .await
    .map_err(|error| error.to_string())?
}

/// What is known of an executable.
struct Seen {
    path: Result<String, String>,
    hash: Option<Result<String, String>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the process changed its user or groups while it was looked at")]
struct ProcessChanged;

/// The path of the executable, if the agent finds it there too.
fn path(
    directory: &Arc<std::os::fd::OwnedFd>,
    pid: u32,
    executable: &Executable,
    foreign: bool,
) -> Result<String, String> {
    let path = link_at(directory, pid, "exe").map_err(|error: ProcessError| error.to_string())?;
    let Some(text) = path.to_str() else {
        return Err(format!("{} is not UTF-8", path.display()));
    };
    if foreign && !text.ends_with(" (deleted)") {
        return Ok(text.to_owned());
    }
    match same_file(&path, executable) {
        Ok(true) => Ok(text.to_owned()),
        Ok(false) => Err(format!(
            "the agent finds another file at {text}: the executable was replaced, or the process \
             has a mount namespace of its own"
        )),
        Err(error) => Err(format!(
            "the agent does not find the executable at {text}: {error}"
        )),
    }
}

fn same_file(path: &Path, executable: &Executable) -> io::Result<bool> {
    let there = std::fs::metadata(path)?;
    Ok((there.dev(), there.ino()) == executable.file())
}
