//! Starts the real `issuer` and `tbot-proxy` binaries in a temporary directory
//! and stops them when dropped. Test support only: failure is a panic that says
//! what was being done.
//!
//! The binaries are those beside the running test (`target/<profile>/`):
//! `cargo build --bins` makes them, `make test` runs it first.

mod agent;
mod echo;
mod fuse;
mod issuer;
mod load;
mod podman;
mod postgres;
mod probe;
mod process;
mod registry;
mod wait;

pub use agent::{Agent, inbound, outbound, x509_output};
pub use echo::{EchoServer, connect, ping};
pub use fuse::FuseFile;
pub use issuer::{Issuer, TRUST_DOMAIN};
pub use load::{IssueLoad, load, one_call, report};
pub use podman::Podman;
pub use postgres::{Postgres, psql};
pub use process::{Exit, Process, binary, free_port, run, run_expecting_failure};
pub use registry::{Image, Registry, SigningKey};
pub use wait::{eventually, eventually_some};
