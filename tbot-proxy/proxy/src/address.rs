//! Where to listen, and where an application is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// Where a listener listens, or where an application is.
///
/// Written `127.0.0.1:8080`, `[::1]:80`, `db.example:5432` or `unix:///run/x.sock`; `FromStr` reads
/// what `Display` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP; `host` may be a DNS name only where one connects.
    Tcp {
        /// DNS name or IP address (IPv6 without brackets).
        host: String,
        /// Port. 0 where one listens: the kernel chooses.
        port: u16,
    },
    /// Unix stream socket, absolute path.
    Unix(PathBuf),
}

impl Address {
    /// Whether only software on this host can reach it: a Unix socket, `localhost`, or a loopback IP
    /// (an IPv4-mapped one too). A DNS name is not, whatever it resolves to at the moment.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host
                        .parse::<IpAddr>()
                        .is_ok_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// The socket address to listen on: an IP literal, or `localhost` for 127.0.0.1. `None` for a DNS
    /// name (which of its addresses, and until when?) and for a Unix socket.
    pub(crate) fn listen_addr(&self) -> Option<SocketAddr> {
        let Self::Tcp { host, port } = self else {
            return None;
        };
        if host.eq_ignore_ascii_case("localhost") {
            return Some(SocketAddr::from(([127, 0, 0, 1], *port)));
        }
        host.parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, *port))
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp {
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |why| AddressError {
            text: text.to_owned(),
            why,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.contains('\0') {
                Err(refuse("a path holds no NUL"))
            } else if path.starts_with('/') && !path.ends_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(refuse("write an absolute path, as unix:///run/app.sock"))
            };
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| refuse("the port is missing, as in 127.0.0.1:8080"))?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse("the port must be a number"));
        }
        let port = port
            .parse()
            .map_err(|_| refuse("the port must be 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .and_then(|ip| ip.parse::<Ipv6Addr>().ok())
                .ok_or_else(|| refuse("no IPv6 address between the brackets"))?
                .to_string(),
            None if host.contains(':') => {
                return Err(refuse("an IPv6 address stands in brackets, as [::1]:80"));
            }
            None if is_host(host) => host.to_owned(),
            None => return Err(refuse("no DNS name or IP address before the port")),
        };
        Ok(Self::Tcp { host, port })
    }
}

/// An IPv4 address, or a DNS name by RFC 1123 2.1 (underscores allowed, as Docker names have them). A last
/// label of digits only is an IPv4 address or nothing: `1.2.3` must not reach a resolver that pads it.
fn is_host(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && !last_is_number && name.split('.').all(is_label)
}

/// Why text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {why}")]
pub struct AddressError {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests;
