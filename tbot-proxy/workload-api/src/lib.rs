//! The SPIFFE Workload API, the Broker API and Envoy's secret discovery, over any source
//! of identities.
//!
//! The server knows the wire; who a caller is and what it may have is the business
//! of its [`Backend`].

pub mod authority;
mod backend;
pub mod broker;
pub mod client;
mod connection;
mod grpc;
mod listener;
mod meters;
mod options;
mod responses;
pub mod sds;
mod server;
mod service;
mod shared;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::{
    Backend, BundleContext, Denied, HeldX509, IssuedJwt, IssuedWit, WitContext, X509Context,
};
pub use grpc::{MAX_MESSAGE, MAX_REQUEST};
pub use listener::Listener;
pub use meters::describe as describe_metrics;
pub use options::Options;
pub use responses::MAX_HINT;
pub use server::Server;
pub use service::{HEADER, WORKLOAD_API};
pub use unix_socket::BindError;
