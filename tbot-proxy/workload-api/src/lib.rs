//! The SPIFFE Workload API, over any source of identities.
//!
//! The server knows the wire; who a caller is and what it may have is the business
//! of its [`Backend`].

mod backend;

pub use backend::{
    Backend, BundleContext, Denied, HeldX509, IssuedJwt, IssuedWit, WitContext, X509Context,
};
