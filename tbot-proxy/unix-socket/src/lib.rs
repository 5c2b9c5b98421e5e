//! Unix listening sockets.
//!
//! A Unix socket belongs to whoever bound it: one that another process answers on is refused; one that a
//! dead process left behind is replaced; and at the end only our own file is removed, told by its inode,
//! so that a successor that has taken the path over keeps it. Two that start at once take turns, by a lock
//! on a file of our own beside it (`.NAME.tbot-turn`) from the look at the path to the end of the bind. The file has its mode before `listen`, and
//! before `listen` nobody can connect: there is no moment at which others could.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::geteuid,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that the kernel holds for us until we accept them; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long another may have its turn: it takes a few system calls.
const TURN: Duration = Duration::from_secs(1);

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there, or might.
    #[error("cannot listen on {}: another process does: stop it, or take another path", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file of another kind is there.
    #[error("cannot listen on {}: it is there and is no socket: move it, or take another path", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The file by which processes take turns is not ours, or somebody keeps it locked.
    #[error("cannot listen on {}: {} {why}: stop who made it, and remove it", path.display(), lock.display())]
    Turn {
        /// The socket.
        path: PathBuf,
        /// The file.
        lock: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The folder is not there.
    #[error("cannot listen on {}: its folder is not there: make it", path.display())]
    NoFolder {
        /// The socket.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

/// The file of a Unix socket of ours; removed when dropped, unless the path is another's by now.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

/// Binds and listens on `path`, without blocking, in place of what a dead process left there. The file has
/// the permission bits `mode`: everyone who can connect *is* the workload.
pub fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    if !path.parent().is_some_and(Path::is_dir) {
        let path = path.to_owned();
        return Err(BindError::NoFolder { path });
    }
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse {
            path: path.to_owned(),
        },
        _ => BindError::Listen {
            path: path.to_owned(),
            source,
        },
    };
    let _turn = Turn::take(path)?;
    make_way(path)?;
    listen(path, mode).map_err(failed)
}

/// The right to replace what is at a path, which one process at a time has; its file is
/// removed when dropped.
struct Turn {
    path: PathBuf,
    _locked: File,
}

impl Turn {
    /// Waits for [`TURN`] at most.
    fn take(socket: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen {
            path: socket.to_owned(),
            source,
        };
        let name = socket.file_name().unwrap_or_default().as_bytes();
        let name = [b".", name, b".tbot-turn"].concat();
        let path = socket.with_file_name(OsStr::from_bytes(&name));
        let refused = |why| BindError::Turn {
            path: socket.to_owned(),
            lock: path.clone(),
            why,
        };
        // A FIFO of somebody else's keeps nobody waiting.
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let deadline = Instant::now() + TURN;
        loop {
            let locked = openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR);
            let locked = File::from(locked.map_err(|error| failed(error.into()))?);
            let found = locked.metadata().map_err(failed)?;
            let is_ours = found.is_file()
                && found.uid() == geteuid().as_raw()
                && found.len() == 0
                && found.mode() & 0o077 == 0;
            if !is_ours {
                return Err(refused("is not ours"));
            }
            match locked.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(refused("is locked by another process"));
                }
                Err(TryLockError::WouldBlock) => {
                    sleep(Duration::from_millis(2));
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Whoever had the turn before has removed the file: the lock is on the one that
            // is there now, or on none.
            let is_there = fs::symlink_metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()));
            if is_there {
                return Ok(Self {
                    path,
                    _locked: locked,
                });
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // One that stays is taken by the next.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the socket that a dead process left at `path`; refuses anything else that is there.
fn make_way(path: &Path) -> Result<(), BindError> {
    let path_of = || path.to_owned();
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path_of() });
    }
    // Only a refused connection proves that nobody listens. A full queue (EAGAIN) or a socket that we may
    // not open (EACCES) has somebody behind it, for all that we know.
    let knock = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match knock {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a process that is gone");
            fs::remove_file(path).map_err(|source| BindError::Listen {
                path: path_of(),
                source,
            })
        }
        _ => Err(BindError::InUse { path: path_of() }),
    }
}

fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // The file itself, not what a link in its place leads to.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(openat(CWD, path, flags, Mode::empty())?);
    let bound = opened.metadata()?;
    if !bound.file_type().is_socket() {
        return Err(io::Error::other("it was replaced while it was bound"));
    }
    let file = SocketFile {
        path: path.to_owned(),
        device: bound.dev(),
        inode: bound.ino(),
    };
    let opened = format!("/proc/self/fd/{}", opened.as_raw_fd());
    fs::set_permissions(opened, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

#[cfg(test)]
mod tests;
