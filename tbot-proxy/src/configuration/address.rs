//! Addresses: which are right where, and which exclude each other.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use proxy::Address;

/// Longest path of a Unix socket: `sun_path` of Linux, less its closing zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// A host name or IP address, and a port. `Display` writes it as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or IP address, the latter without brackets.
    pub host: String,
    /// Port, from 1.
    pub port: u16,
}

impl HostPort {
    /// Parses `host:port`, `1.2.3.4:port` or `[v6]:port`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse_connect(text)? {
            Address::Tcp { host, port } => Ok(Self { host, port }),
            Address::Unix(_) => Err(format!("`{text}`: write host:port")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.host.clone(), self.port);
        Address::Tcp { host, port }.fmt(f)
    }
}

/// Parses where to listen: an IP address and a port (0: any), or a Unix socket.
pub(super) fn parse_listen(text: &str) -> Result<Address, String> {
    let address = parse(text)?;
    match SharedAddress::of(&address) {
        Some(_) => Ok(address),
        None => Err(format!(
            "`{text}`: listen on an IP address of this host, or on unix:///path"
        )),
    }
}

/// Parses where to connect: host and port, or a Unix socket.
pub(super) fn parse_connect(text: &str) -> Result<Address, String> {
    match parse(text)? {
        Address::Tcp { port: 0, .. } => Err(format!("`{text}`: port 0 cannot be connected to")),
        address => Ok(address),
    }
}

/// Parses where diagnostics listen: loopback only, as they answer anybody.
pub(super) fn parse_diagnostics(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is not an address: write 127.0.0.1:3082"))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{address} is not loopback: diagnostics answer without authentication; use 127.0.0.1:{}",
            address.port()
        ));
    }
    Ok(address)
}

fn parse(text: &str) -> Result<Address, String> {
    let address: Address = text
        .parse()
        .map_err(|error: proxy::AddressError| error.to_string())?;
    match &address {
        Address::Unix(path) if path.as_os_str().len() > LONGEST_SOCKET_PATH => Err(format!(
            "`{text}`: the path is longer than {LONGEST_SOCKET_PATH} bytes, the most that a Unix socket can have"
        )),
        _ => Ok(address),
    }
}

/// A listening address, to find out whether another one takes the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SharedAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl SharedAddress {
    /// `None` for a DNS name.
    pub(crate) fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Unix(path) => Some(Self::Unix(path.clone())),
            Address::Tcp { host, port } => {
                let ip = match host.as_str() {
                    "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    host => host.parse().ok()?,
                };
                Some(Self::Tcp(SocketAddr::new(ip, *port)))
            }
        }
    }

    /// Whether both cannot be listened on at once.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(two)) => one == two,
            (Self::Tcp(one), Self::Tcp(two)) => {
                one.port() != 0
                    && one.port() == two.port()
                    && (one.ip() == two.ip()
                        || one.ip().is_unspecified()
                        || two.ip().is_unspecified())
            }
            _ => false,
        }
    }
}

impl From<SocketAddr> for SharedAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}
