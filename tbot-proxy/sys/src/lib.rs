//! What the agent asks of the machine: of the kernel for itself as a process, and of a
//! socket where `rustix` has no safe form yet; of its files who a user is, and what
//! `/proc` says of a process.
//!
//! This is the one crate of the workspace in which `unsafe` may be allowed, function
//! by function and with its reason: [`peer_pidfd`], [`peer_credentials`], [`readable`]. The
//! functions on the whole process are called once by a `main`, before it starts
//! threads.

pub mod accounts;
mod stat;

pub use self::stat::StatFields;

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities, clear_ambient_capability_set, set_capabilities},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Keeps private keys out of core files and out of reach of other processes of the
/// same user: the process becomes undumpable (`PR_SET_DUMPABLE` 0: no core file, no
/// ptrace, `/proc/PID/mem` closed) and `RLIMIT_CORE` is set to 0, hard limit too.
///
/// # Errors
///
/// The kernel's, with the call that it refused. A seccomp filter is the usual cause.
pub fn harden_process() -> Result<(), SysError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| SysError {
        tried: "prctl(PR_SET_DUMPABLE, 0)",
        source: error.into(),
    })?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|error| SysError {
        tried: "setrlimit(RLIMIT_CORE, 0)",
        source: error.into(),
    })
}

/// Keeps the capabilities of this process from the programs that it starts: from here on
/// none is inheritable, and so none is ambient (capabilities(7)). The process itself keeps
/// what it has. Of this thread, and of those that it starts.
///
/// # Errors
///
/// The kernel's, with the call that it refused.
pub fn keep_capabilities_from_children() -> Result<(), SysError> {
    let refused = |tried| {
        move |error: rustix::io::Errno| SysError {
            tried,
            source: error.into(),
        }
    };
    clear_ambient_capability_set().map_err(refused("prctl(PR_CAP_AMBIENT_CLEAR_ALL)"))?;
    let mut sets = capabilities(None).map_err(refused("capget"))?;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).map_err(refused("capset, with none that is inheritable"))
}

/// Raises the soft limit of open files to the hard limit and returns what holds now
/// (`u64::MAX`: unlimited). Each relayed connection takes two files.
///
/// # Errors
///
/// The kernel's. The old limit holds then.
pub fn raise_file_limit() -> Result<u64, SysError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised).map_err(|error| SysError {
            tried: "setrlimit(RLIMIT_NOFILE, hard limit)",
            source: error.into(),
        })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// A pidfd of the process that connected the other end of this Unix socket
/// (`SO_PEERPIDFD`, Linux 6.5): a handle that no recycled PID can take over.
///
/// # Errors
///
/// `ENOPROTOOPT` on an older kernel, `ENODATA` if the socket has no such peer, and
/// `EINVAL` or `ESRCH` if the process is gone already (newer kernels answer with the
/// pidfd of a process that has ended).
#[allow(unsafe_code)]
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let fd: RawFd = socket_option(socket, libc::SO_PEERPIDFD)?;
    if fd < 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the kernel made this descriptor for this call; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the reactor of tokio sees it, to wait until it is readable.
///
/// # Errors
///
/// The kernel's, for what cannot be polled.
///
/// # Panics
///
/// Outside of a runtime with I/O enabled.
#[allow(unsafe_code)]
pub fn readable(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `Arc<OwnedFd>` names one descriptor that stays open as long as it is
    // held, and the reactor holds it as long as it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// A descriptor that this process was started with (`sd_listen_fds(3)`). It is a copy:
/// the one that was inherited stays open, and is not handed to programs that we start.
///
/// # Errors
///
/// `EBADF` if there is none of this number.
#[allow(unsafe_code)]
pub fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is borrowed for this call only, which fails if it is not open; whatever it
    // is, nothing is done to it but to copy it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned()
}

/// Who connected the other end of a Unix socket, at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The number of the process, 0 if it has none in the PID namespace of this one.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The credentials of the other end (`SO_PEERCRED`, unix(7)).
///
/// Not `rustix::net::sockopt::socket_peercred`: its type has no room for the PID 0,
/// which the kernel answers for a process of another PID namespace.
///
/// # Errors
///
/// The kernel's, for what is no socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    // `struct ucred`: three numbers of 32 bits, any of which may have any value.
    let [pid, uid, gid]: [u32; 3] = socket_option(socket, libc::SO_PEERCRED)?;
    Ok(PeerCredentials { pid, uid, gid })
}

/// What a socket option of the level `SOL_SOCKET` holds.
#[allow(unsafe_code)]
fn socket_option<T: Plain>(socket: impl AsFd, option: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so it is open; the kernel writes at most
    // `length` bytes, the size of `value`, any bytes are a valid `T` (it is `Plain`),
    // and both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<T>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(value)
}

/// A type of which any bytes are a valid value.
trait Plain: Default {}
impl Plain for i32 {}
impl Plain for [u32; 3] {}

/// A call that the kernel refused.
#[derive(Debug)]
pub struct SysError {
    tried: &'static str,
    source: io::Error,
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was refused: {}", self.tried, self.source)
    }
}

impl std::error::Error for SysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
