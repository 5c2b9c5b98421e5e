//! A process, pinned.
//!
//! A PID is a number that the kernel gives to the next process when its owner has
//! ended. A [`Process`] is two descriptors that it never gives away: a pidfd, and the
//! directory `/proc/PID` opened once, below which every fact is read. Both were
//! opened while the pidfd said that the process lives, so both mean the same process
//! (a number is free again only after its process was reaped), and after its end
//! every read fails. What was read is believed only if the process still lives
//! afterwards ([`Process::check_alive`]).
//!
//! What it cannot prove: that the process which *connected* is the only one that
//! holds the socket. A process may hand its socket to a child and end, then nothing
//! is attested and [`Process::ended`] resolves; or hand it on and live, then the peer
//! speaks with the identity of the process that connected, which wanted it so. It may
//! also execute another program: who changes its user or group by that (a set-user-ID
//! program) is refused, because the ids at the time of connecting are kept.

use std::{
    fmt,
    future::Future,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open, openat, readlinkat},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use sys::PeerCredentials;
use telemetry::Throttle;
use tokio::io::unix::AsyncFd;

use crate::procfs::{self, ParseError};

mod table;
#[cfg(test)]
mod tests;

pub use self::table::Processes;

/// No file below `/proc/PID` that is read here is longer, in bytes; `mountinfo` of a
/// host with thousands of containers is the longest.
const MAX_FILE: usize = 8 << 20;

/// One process, as long as it lives and after.
pub struct Process {
    key: ProcessKey,
    pidfd: Arc<OwnedFd>,
    /// `/proc/PID`, opened with `O_PATH`.
    directory: Arc<OwnedFd>,
    /// The pidfd as the reactor of tokio sees it, from the first wait on.
    watched: OnceLock<AsyncFd<Arc<OwnedFd>>>,
    /// Held by who registers it: a descriptor can be registered once.
    registering: Mutex<()>,
}

/// What is the same for every handle of one process and differs between processes,
/// those that had or will have its PID too. Ids at the time of connecting are part of
/// it: two connections of one process, made before and after it changed its user, are
/// two callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Its number in the PID namespace of this process.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// User and group when it connected; none for [`Process::of_pid`].
    pub connected_as: Option<(u32, u32)>,
}

impl Process {
    /// The process that connected the other end of a Unix socket.
    ///
    /// By `SO_PEERPIDFD`; on kernels before 6.5 by `SO_PEERCRED`, with the start time
    /// and the user and group of the process compared once it is pinned.
    pub fn of_peer(socket: impl AsFd) -> Result<Self, ProcessError> {
        let socket = socket.as_fd();
        let pidfd = match sys::peer_pidfd(socket) {
            Ok(pidfd) => pidfd,
            Err(source) => {
                return match Errno::from_io_error(&source) {
                    Some(Errno::NOPROTOOPT) => Self::of_peer_by_pid(socket),
                    Some(Errno::SRCH | Errno::INVAL) => Err(ProcessError::Ended {
                        pid: credentials(socket)?.pid,
                    }),
                    _ => Err(ProcessError::Socket {
                        tried: "SO_PEERPIDFD",
                        source,
                    }),
                };
            }
        };
        // Both options tell of one and the same process: the kernel keeps one peer.
        let peer = credentials(socket)?;
        Self::pin(peer.pid, pidfd, Some((peer.uid, peer.gid)))
    }

    /// The checked way of kernels without `SO_PEERPIDFD`. The number from
    /// `SO_PEERCRED` may have been given to another process since the peer connected:
    /// one with other ids is refused, one that takes the number during these steps
    /// too. What is left is another process of the same user and group.
    fn of_peer_by_pid(socket: impl AsFd) -> Result<Self, ProcessError> {
        let peer = credentials(socket)?;
        if peer.pid == 0 {
            return Err(ProcessError::OtherNamespace);
        }
        let before = ProcessDirectory::open(peer.pid)?.start_time()?;
        let process = Self::pin(peer.pid, open_pidfd(peer.pid)?, Some((peer.uid, peer.gid)))?;
        let status = process.status()?;
        if process.key.start_time != before || (status.uid, status.gid) != (peer.uid, peer.gid) {
            return Err(ProcessError::Recycled { pid: peer.pid });
        }
        process.check_alive()?;
        Ok(process)
    }

    /// The process that has this number now.
    ///
    /// For callers that were told a number and nothing else (the Broker API,
    /// `attest --pid`): whether it still means whom they had in mind, they know.
    pub fn of_pid(pid: u32) -> Result<Self, ProcessError> {
        Self::pin(pid, open_pidfd(pid)?, None)
    }

    /// The same, held to the user and group that it has now: once it acts as others, nothing
    /// that is read of it counts, as with one that has connected itself.
    pub fn of_pid_as_it_is(pid: u32) -> Result<Self, ProcessError> {
        let mut process = Self::of_pid(pid)?;
        let status = process.status()?;
        process.key.connected_as = Some((status.uid, status.gid));
        Ok(process)
    }

    /// Opens `/proc/PID` and makes sure that it is of the process of the pidfd.
    fn pin(
        pid: u32,
        pidfd: OwnedFd,
        connected_as: Option<(u32, u32)>,
    ) -> Result<Self, ProcessError> {
        if pid == 0 {
            return Err(ProcessError::OtherNamespace);
        }
        let directory = ProcessDirectory::open(pid);
        // The order matters: who lives after its directory was opened had the number
        // at that time.
        if has_ended(&pidfd) {
            return Err(ProcessError::Ended { pid });
        }
        let directory = directory?;
        let start_time = directory.start_time()?;
        Ok(Self {
            key: ProcessKey {
                pid,
                start_time,
                connected_as,
            },
            pidfd: Arc::new(pidfd),
            directory: Arc::new(directory.fd),
            watched: OnceLock::new(),
            registering: Mutex::default(),
        })
    }

    /// Its number in the PID namespace of this process.
    pub fn pid(&self) -> u32 {
        self.key.pid
    }

    /// What tells it from every other process.
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Whether it has not ended. One that has ended but was not reaped is not alive.
    pub fn is_alive(&self) -> bool {
        !has_ended(&self.pidfd)
    }

    /// An error if it has ended: what was read before is then to be thrown away.
    pub fn check_alive(&self) -> Result<(), ProcessError> {
        if self.is_alive() {
            Ok(())
        } else {
            Err(ProcessError::Ended { pid: self.pid() })
        }
    }

    /// Resolves when the process ends, at once if it has ended; also when the kernel
    /// cannot watch it any more, as nobody could tell then.
    ///
    /// Must be awaited in a tokio runtime with I/O enabled.
    pub fn ended(self: &Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let process = Arc::clone(self);
        async move {
            if let Err(error) = process.wait().await {
                static TOLD: Throttle = Throttle::ten_a_minute();
                if let Some(held_back) = TOLD.pass() {
                    let pid = process.pid();
                    tracing::warn!(pid, %error, held_back, "process cannot be watched");
                }
            }
        }
    }

    async fn wait(&self) -> io::Result<()> {
        while self.is_alive() {
            let mut ready = self.watched()?.readable().await?;
            if self.is_alive() {
                ready.clear_ready();
            }
        }
        Ok(())
    }

    fn watched(&self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        if let Some(watched) = self.watched.get() {
            return Ok(watched);
        }
        let _turn = self
            .registering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = self.watched.get() {
            return Ok(watched);
        }
        let new = sys::readable(Arc::clone(&self.pidfd))?;
        Ok(self.watched.get_or_init(|| new))
    }

    /// The whole of a file below `/proc/PID`.
    pub fn read(&self, file: &'static str) -> Result<Vec<u8>, ProcessError> {
        read_at(&self.directory, self.pid(), file)
    }

    /// Where a link below `/proc/PID` points, as the kernel writes it.
    pub fn read_link(&self, file: &'static str) -> Result<PathBuf, ProcessError> {
        link_at(&self.directory, self.pid(), file)
    }

    /// Effective ids and groups, now. Refused if they are not those of the time of
    /// connecting.
    pub fn status(&self) -> Result<procfs::Status, ProcessError> {
        let status = procfs::status(&self.read("status")?)?;
        match self.key.connected_as {
            Some(connected_as) if connected_as != (status.uid, status.gid) => {
                Err(ProcessError::ChangedIds {
                    pid: self.pid(),
                    connected_as,
                    now: (status.uid, status.gid),
                })
            }
            _ => Ok(status),
        }
    }

    /// The directory, to be read from another thread.
    pub(crate) fn directory(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.directory)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.key).finish()
    }
}

/// Why a process could not be pinned or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It has ended, so nothing that was read of it counts.
    #[error("process {pid} has ended")]
    Ended {
        /// Its number, 0 if not even that is known.
        pid: u32,
    },
    /// It is not in the PID namespace of this process.
    #[error(
        "the process at the other end of the socket is in another PID namespace and has no number \
         in this one; run the agent in the host's PID namespace (hostPID, --pid=host)"
    )]
    OtherNamespace,
    /// Its number is another process's now.
    #[error("PID {pid} was given to another process after the peer connected")]
    Recycled {
        /// The number.
        pid: u32,
    },
    /// It changed its user or group after it connected.
    #[error(
        "process {pid} connected as uid {} gid {} and acts as uid {} gid {} now; it must connect \
         after the change",
        connected_as.0, connected_as.1, now.0, now.1
    )]
    ChangedIds {
        /// Its number.
        pid: u32,
        /// User and group at the time of connecting.
        connected_as: (u32, u32),
        /// User and group now.
        now: (u32, u32),
    },
    /// There is none of this number, or it is the number of a thread.
    #[error("there is no process {pid} in this PID namespace")]
    NoSuchProcess {
        /// The number.
        pid: u32,
    },
    /// The kernel did not let a file below `/proc/PID` be read.
    #[error("/proc/{pid}/{file} cannot be read: {source}{}", hint(source))]
    Read {
        /// The number of the process.
        pid: u32,
        /// The name of the file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The socket does not tell its peer.
    #[error("{tried} of the socket failed: {source}")]
    Socket {
        /// The socket option.
        tried: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file below `/proc/PID` is not as expected.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// What to do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the agent must run as the same user, or have CAP_SYS_PTRACE (and CAP_DAC_READ_SEARCH \
             for programs that it may not read)"
        }
        _ => "",
    }
}

fn credentials(socket: impl AsFd) -> Result<PeerCredentials, ProcessError> {
    sys::peer_credentials(socket).map_err(|source| ProcessError::Socket {
        tried: "SO_PEERCRED",
        source,
    })
}

/// `/proc/PID` before it is known whose it is.
struct ProcessDirectory {
    pid: u32,
    fd: OwnedFd,
}

impl ProcessDirectory {
    fn open(pid: u32) -> Result<Self, ProcessError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(format!("/proc/{pid}"), flags, Mode::empty()) {
            Ok(fd) => Ok(Self { pid, fd }),
            Err(Errno::NOENT) => Err(ProcessError::NoSuchProcess { pid }),
            Err(error) => Err(ProcessError::Read {
                pid,
                file: "",
                source: error.into(),
            }),
        }
    }

    fn start_time(&self) -> Result<u64, ProcessError> {
        Ok(procfs::stat(&read_at(&self.fd, self.pid, "stat")?)?.start_time)
    }
}

fn open_pidfd(pid: u32) -> Result<OwnedFd, ProcessError> {
    let missing = ProcessError::NoSuchProcess { pid };
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(missing);
    };
    pidfd_open(raw, PidfdFlags::empty()).map_err(|error| match error {
        // The last two: the number of a thread that leads no process.
        Errno::SRCH | Errno::INVAL | Errno::NOENT => missing,
        error => ProcessError::Read {
            pid,
            file: "(pidfd)",
            source: error.into(),
        },
    })
}

/// A pidfd is readable once its process has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            // Nothing is known of it any more.
            Err(_) => return true,
        }
    }
}

fn read_error(pid: u32, file: &'static str, error: Errno) -> ProcessError {
    match error {
        Errno::SRCH => ProcessError::Ended { pid },
        error => ProcessError::Read {
            pid,
            file,
            source: error.into(),
        },
    }
}

fn read_at(directory: impl AsFd, pid: u32, file: &'static str) -> Result<Vec<u8>, ProcessError> {
    let error = |error| read_error(pid, file, error);
    let fd = openat(
        directory,
        file,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(error)?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if bytes.len() > MAX_FILE {
            return Err(error(Errno::FBIG));
        }
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) => {
                if bytes.spare_capacity_mut().is_empty() {
                    bytes.reserve(bytes.len());
                }
            }
            Err(Errno::INTR) => {}
            Err(other) => return Err(error(other)),
        }
    }
}

pub(crate) fn link_at(
    directory: impl AsFd,
    pid: u32,
    file: &'static str,
) -> Result<PathBuf, ProcessError> {
    use std::os::unix::ffi::OsStringExt;
    let target =
        readlinkat(directory, file, Vec::new()).map_err(|error| read_error(pid, file, error))?;
    Ok(std::ffi::OsString::from_vec(target.into_bytes()).into())
}
