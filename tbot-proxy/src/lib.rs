//! The agent that runs beside workloads: joins the issuer, keeps identities fresh,
//! writes them to files, and carries plain traffic over SPIFFE mutual TLS.
//!
//! Where to begin: [`agent`] puts it together; `bot` keeps the identity that the
//! agent itself has, `svid` those of workloads, over the connection in `link`;
//! `services` turns a configuration into what runs; `output` writes files; the
//! connection path is the crate `proxy`.

pub mod agent;
mod bot;
mod cache;
pub mod cli;
pub mod configuration;
mod debug;
mod diagnostics;
mod issuance;
mod join;
mod jwt;
mod kept;
mod key;
mod link;
mod metrics;
mod output;
mod reads;
mod records;
mod schedule;
mod sealed;
mod served;
mod services;
mod state;
mod status;
mod storage;
mod svid;
mod systemd;
mod trust;
mod workload;

pub use join::JoinError;
pub use link::{CallError, LinkError};
pub use records::RecordsError;
pub use storage::StorageError;
