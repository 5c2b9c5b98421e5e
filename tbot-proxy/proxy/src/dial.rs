//! Connecting to the application or the peer.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use relay::Socket;
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{Address, CloseReason, close_reason::Close, resolver::Resolver};

/// A dead peer (a crash, a cut cable) is noticed after `idle + interval * 6`: two minutes. Not
/// `TCP_USER_TIMEOUT`: Linux applies it to a peer that is alive and has merely stopped to read, too.
pub(crate) const KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
};

/// Pause before a Unix socket whose queue is full is tried again: the kernel has no event for it.
const UNIX_RETRY: Duration = Duration::from_millis(5);

/// TCP keepalive times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keepalive {
    idle: Duration,
    interval: Duration,
}

/// As the socket option takes them.
pub(crate) fn keepalive(times: Keepalive) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(times.idle)
        .with_interval(times.interval)
        .with_retries(6)
}

/// Connects within `limit` and tells which address answered.
///
/// A name's addresses are tried in the resolver's order (RFC 6724), each within its share of the time that
/// is left, so that one that swallows packets does not use up the others' chance.
pub(crate) async fn dial(
    address: &Address,
    limit: Duration,
    resolver: &Resolver,
) -> Result<(Socket, Address), Close> {
    let deadline = Instant::now() + limit;
    let connected = timeout_at(deadline, async {
        match address {
            Address::Unix(path) => dial_unix(path).await.map(|io| (io, address.clone())),
            Address::Tcp { host, port } => dial_tcp(host, *port, deadline, resolver).await,
        }
    });
    let too_late = || {
        Close::new(
            CloseReason::DialTimeout,
            format_args!("{address} did not answer within {limit:?}"),
        )
    };
    match connected.await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(too_late()),
        Ok(Err(error)) => {
            let reason = if is_shortage(&error) {
                CloseReason::Overload
            } else {
                CloseReason::DialFailed
            };
            Err(Close::new(reason, format_args!("{address}: {error}")))
        }
        Err(_) => Err(too_late()),
    }
}

/// Whether this host was short of something, so that nothing is said about what was dialled.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                // No port is left for this destination.
                | Errno::ADDRNOTAVAIL
        )
    )
}

async fn dial_unix(path: &Path) -> io::Result<Socket> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(UNIX_RETRY).await,
            connected => return connected.map(Socket::Unix),
        }
    }
}

async fn dial_tcp(
    host: &str,
    port: u16,
    deadline: Instant,
    resolver: &Resolver,
) -> io::Result<(Socket, Address)> {
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => Arc::from([SocketAddr::new(ip, port)]),
        Err(_) => resolver.resolve(host, port).await?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, addr) in found.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => {
                equip(&stream, addr.ip())?;
                return Ok((Socket::Tcp(stream), (*addr).into()));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn equip(stream: &TcpStream, server: IpAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // The kernel tells at once of a loopback peer that is gone: four system calls less.
    if !server.is_loopback() {
        SockRef::from(stream).set_tcp_keepalive(&keepalive(KEEPALIVE))?;
    }
    Ok(())
}

/// Whether closing `io` is to reset it (`SO_LINGER` 0) or to end it.
///
/// A local client is reset while it is not served: software that knows nothing of us must not take a refusal for an
/// empty answer. A Unix socket has no reset; its client sees the end.
pub(crate) fn reset_on_close(io: &Socket, reset: bool) -> io::Result<()> {
    match io {
        Socket::Tcp(stream) => SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO)),
        Socket::Unix(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
