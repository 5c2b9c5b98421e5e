//! Listening sockets.
//!
//! A Unix socket is for its owner only, from the first moment, and goes with its listener ([`unix_socket`]).

use std::{io, net::SocketAddr};

use relay::Socket;
use socket2::{Domain, Type};
use tokio::net::{TcpListener, UnixListener};
use unix_socket::SocketFile;

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
                let (listener, file) = unix_socket::bind(path, SOCKET_MODE)
                    .map_err(|error| StartError::of_socket(service, error))?;
                let listener = UnixListener::from_std(listener).map_err(refused)?;
                Ok(Self::Unix(listener, file))
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
            Self::Unix(_, file) => Ok(Address::Unix(file.path().to_owned())),
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
