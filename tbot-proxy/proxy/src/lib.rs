//! The mutual-TLS proxy: listeners, the connection path, leases and records.
//!
//! A [`ProxyService`] carries plain connections of local software over SPIFFE mutual TLS, in one direction. What it
//! promises:
//!
//! - **Nothing before authorization.** After *every* handshake, resumed ones too, the peer is identified from its chain
//!   against the trust of this moment and authorized by the policy of this moment. Until then no byte of an
//!   application is read and no application is dialled. A policy that allows nobody does not start.
//! - **Authorization stays true.** A live connection ends when its peer's identity expires, when trust in it is
//!   withdrawn, when the policy refuses it ([`CloseReason`] tells which). Rotation of our own SVID touches none.
//! - **Every connection leaves a record**, whatever its way out: one [`ConnectionRecord`], one log line (target `connection`),
//!   one count.
//! - **Peers cost each other nothing.** Each phase has its deadline; those that stall before they have proven who they are give
//!   way to others; a process out of files pauses and recovers.
//!
//! `connection` holds the path in execution order; start reading there.

mod accept;
mod address;
mod close_reason;
mod config;
mod connection;
mod dial;
mod error;
mod lease;
mod listener;
mod meters;
mod record;
mod registry;
mod resolver;
mod service;
mod tls;

pub use address::{Address, AddressError};
pub use close_reason::{CloseReason, Fault};
pub use config::{Direction, Limits, OnExpiry, ServiceConfig};
pub use error::StartError;
pub use record::{ConnectionRecord, RecordSink};
pub use service::ProxyService;
