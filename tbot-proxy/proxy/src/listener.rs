//! Listening sockets.
//!
//! A Unix socket belongs to whoever bound it: one that another process answers on is refused; one that a
//! dead process left behind is replaced; and at the end only our own file is removed, told by its inode,
//! so that a successor that has taken the path over keeps it. The file has mode 0600 before `listen`, and
//! before `listen` nobody can connect: there is no moment at which others could.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use relay::Socket;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    Address, StartError,
    dial::{self, KEEPALIVE},
};

/// Connections that the kernel holds for us until we accept them; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Who may connect to a Unix socket: its owner. Everyone who can connect *is* the workload.
const SOCKET_MODE: u32 = 0o600;

/// An accepted socket, and who connected (TCP).
pub(crate) type Accepted = (Socket, Option<SocketAddr>);

/// A listening socket of either kind.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds and listens. Must be called within the runtime that is to serve it.
    pub(crate) fn bind(service: &str, address: &Address) -> Result<Self, StartError> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => StartError::InUse {
                service: service.to_owned(),
                address: address.clone(),
            },
            _ => StartError::Listen {
                service: service.to_owned(),
                address: address.clone(),
                source: error,
            },
        };
        match address {
            Address::Unix(path) => {
                make_way(service, path)?;
                bind_unix(path).map_err(refused)
            }
            Address::Tcp { host, .. } => {
                let addr = address
                    .listen_addr()
                    .ok_or_else(|| StartError::ListenName {
                        service: service.to_owned(),
                        host: host.clone(),
                    })?;
                bind_tcp(addr).map_err(refused)
            }
        }
    }

    /// The address listened on, with the port that the kernel chose for port 0.
    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.into()),
            Self::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// The next connection. Cancellation loses none.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Some(client)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }

    /// Stops listening: hands over what the kernel has queued, at most `room` connections, and closes.
    /// Those beyond are reset by the kernel.
    pub(crate) fn close(self, room: usize) -> Vec<Accepted> {
        let mut queued = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else {
                    return queued;
                };
                while queued.len() < room
                    && let Ok((stream, client)) = listener.accept()
                    && stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = stream.try_into()
                {
                    queued.push((Socket::Tcp(stream), Some(client)));
                }
            }
            Self::Unix(listener, file) => {
                // No new connection finds the path from here on; those that did are in the queue.
                drop(file);
                let Ok(listener) = listener.into_std() else {
                    return queued;
                };
                while queued.len() < room
                    && let Ok((stream, _)) = listener.accept()
                    && stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = stream.try_into()
                {
                    queued.push((Socket::Unix(stream), None));
                }
            }
        }
        queued
    }
}

/// The file of a Unix socket of ours; removed when dropped, unless the path is another's by now.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
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

/// Removes the socket that a dead process left at `path`; refuses anything else that is there.
fn make_way(service: &str, path: &Path) -> Result<(), StartError> {
    let service = || service.to_owned();
    if !path.parent().is_some_and(Path::is_dir) {
        return Err(StartError::NoFolder {
            service: service(),
            path: path.to_owned(),
        });
    }
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(StartError::NotASocket {
            service: service(),
            path: path.to_owned(),
        });
    }
    // Only a refused connection proves that nobody listens. A full queue (EAGAIN) or a socket that we may
    // not open (EACCES) has somebody behind it, for all that we know.
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a process that is gone");
            fs::remove_file(path).map_err(|source| StartError::Listen {
                service: service(),
                address: Address::Unix(path.to_owned()),
                source,
            })
        }
        _ => Err(StartError::InUse {
            service: service(),
            address: Address::Unix(path.to_owned()),
        }),
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let bound = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        device: bound.dev(),
        inode: bound.ino(),
    };
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into())?, file))
}

/// One socket for all workers: with `SO_REUSEPORT` and one a core the kernel deals connections out blindly,
/// which cost 10 % more CPU and a worse p99 (proxy-facts 2.4), and a socket that closes takes its queue along.
fn bind_tcp(addr: SocketAddr) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    // A restart finds the port free although connections of its predecessor are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Linux hands both on to every accepted socket: no system call a connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&dial::keepalive(KEEPALIVE))?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(TcpListener::from_std(socket.into())?))
}

#[cfg(test)]
mod tests;
