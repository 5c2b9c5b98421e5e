//! Where to connect or listen, and the rule that load stays on this machine.
//!
//! A load generator pointed at the wrong address is an attack. So a target is a Unix socket, a
//! loopback address, or (with `--allow-private`) an address that one of this machine's own
//! interfaces carries: never a name, never another host. Which addresses are ours is asked of the
//! routing table without sending anything: a UDP socket "connected" to a local address gets that
//! very address as its source.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    str::FromStr,
};

use anyhow::{Context, bail};

/// A TCP or Unix stream address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Path of a Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// Refuses what is not on this machine (see the module's rule).
    pub fn check_target(&self, allow_private: bool) -> anyhow::Result<()> {
        let Self::Tcp(addr) = self else {
            return Ok(());
        };
        if addr.port() == 0 {
            bail!("target {self}: port 0 cannot be connected to; give the port it listens on");
        }
        let ip = addr.ip().to_canonical();
        if ip.is_loopback() {
            return Ok(());
        }
        if !allow_private {
            bail!(
                "target {self} is not a loopback address: load is only sent to this machine \
                 (127.0.0.0/8, ::1, unix:PATH; --allow-private admits this machine's own interface addresses)"
            );
        }
        if !is_own_address(ip) {
            bail!(
                "target {self} is not an address of this machine: run loadtest on the machine \
                 (or in the network namespace) that has it"
            );
        }
        Ok(())
    }

    /// Refuses to offer a backend to anyone but this machine.
    pub fn check_listen(&self) -> anyhow::Result<()> {
        match self {
            Self::Tcp(addr) if !addr.ip().to_canonical().is_loopback() => {
                bail!("--listen {self}: only loopback addresses and Unix sockets are listened on")
            }
            _ => Ok(()),
        }
    }
}

/// Whether one of this machine's interfaces (in this network namespace) carries `ip`.
fn is_own_address(ip: IpAddr) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return false;
    }
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?; // no datagram leaves; the port is never used
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

impl FromStr for Address {
    type Err = anyhow::Error;

    /// Reads `127.0.0.1:9000`, `[::1]:9000`, `tcp:…`, `unix:///path` or `unix:/path`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                bail!("`{text}`: the socket's path must be absolute, as in unix:///run/app.sock");
            }
            return Ok(Self::Unix(path.into()));
        }
        let tcp = text.strip_prefix("tcp:").unwrap_or(text);
        let tcp = tcp.strip_prefix("//").unwrap_or(tcp);
        tcp.parse().map(Self::Tcp).with_context(|| {
            format!("`{text}` is no address: give IP:PORT (no host names) or unix:///PATH")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
