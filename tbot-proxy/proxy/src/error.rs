//! Why a service does not start, or does not take a changed configuration.

use std::{io, path::PathBuf};

use unix_socket::BindError;

use crate::Address;

/// Why a service does not start. Each message names the service, the value and the remedy, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The peers allow nobody (DESIGN D5).
    #[error(
        "service {service:?}: `peers` allows nobody; name at least one peer that it may talk to"
    )]
    AllowsNobody {
        /// Service name.
        service: String,
    },
    /// A DNS name to listen on.
    #[error(
        "service {service:?}: cannot listen on the name {host:?}; write an IP address of this host, or localhost"
    )]
    ListenName {
        /// Service name.
        service: String,
        /// The name.
        host: String,
    },
    /// Port 0 to connect to.
    #[error(
        "service {service:?}: cannot connect to {address}: port 0; write the port of the application"
    )]
    ConnectPort {
        /// Service name.
        service: String,
        /// The address.
        address: Address,
    },
    /// A limit of zero.
    #[error("service {service:?}: the limit `{limit}` is zero; make it positive, or leave it out")]
    ZeroLimit {
        /// Service name.
        service: String,
        /// Which.
        limit: &'static str,
    },
    /// Another process listens there.
    #[error(
        "service {service:?}: {address} is in use by another process; stop that one, or choose another address"
    )]
    InUse {
        /// Service name.
        service: String,
        /// The address.
        address: Address,
    },
    /// Something that is no socket is where the Unix socket should be.
    #[error(
        "service {service:?}: {} exists and is not a socket; remove it, or choose another path",
        path.display()
    )]
    NotASocket {
        /// Service name.
        service: String,
        /// The path.
        path: PathBuf,
    },
    /// The folder of a Unix socket is not there.
    #[error(
        "service {service:?}: no folder for the socket {}; create {}",
        path.display(),
        path.parent().unwrap_or(path).display()
    )]
    NoFolder {
        /// Service name.
        service: String,
        /// Path of the socket.
        path: PathBuf,
    },
    /// The file by which processes take turns at a Unix socket.
    #[error("service {service:?}: {why}")]
    Turn {
        /// Service name.
        service: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The kernel refused.
    #[error(
        "service {service:?}: cannot listen on {address}: {source}; {}",
        remedy(address, source)
    )]
    Listen {
        /// Service name.
        service: String,
        /// The address.
        address: Address,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A changed configuration changes what a running service cannot.
    #[error(
        "service {service:?}: `{field}` cannot change from {from} to {to} while it runs; drain this service and start another"
    )]
    Unchangeable {
        /// Service name.
        service: String,
        /// `name`, `direction` or `listen`.
        field: &'static str,
        /// As it is.
        from: String,
        /// As it was to become.
        to: String,
    },
}

impl StartError {
    /// That a service's Unix socket could not be bound.
    pub fn of_socket(service: &str, error: BindError) -> Self {
        let service = service.to_owned();
        match error {
            BindError::InUse { path } => Self::InUse {
                service,
                address: Address::Unix(path),
            },
            BindError::NotASocket { path } => Self::NotASocket { service, path },
            BindError::NoFolder { path } => Self::NoFolder { service, path },
            BindError::Listen { path, source } => Self::Listen {
                service,
                address: Address::Unix(path),
                source,
            },
            BindError::Turn { .. } => Self::Turn {
                service,
                why: error.to_string(),
            },
        }
    }
}

fn remedy(address: &Address, error: &io::Error) -> &'static str {
    match (error.kind(), address) {
        (io::ErrorKind::PermissionDenied, Address::Unix(_)) => {
            "let this user write to the folder, or choose another path"
        }
        (io::ErrorKind::PermissionDenied, Address::Tcp { .. }) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or choose a higher port"
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "no interface of this host has this address; choose one that has, or 0.0.0.0"
        }
        (io::ErrorKind::InvalidInput, Address::Unix(_)) => {
            "the path of a socket has at most 107 bytes; choose a shorter one"
        }
        _ => "choose another address",
    }
}
