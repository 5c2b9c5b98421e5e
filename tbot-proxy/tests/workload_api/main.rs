//! The Workload API of the agent, before a real issuer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod broker;
mod cache_is_shared;
mod conformance;
mod containers;
mod issuer_away;
mod policy_reaches_streams;
mod rig;
mod sealed_store;
#[cfg(feature = "sigstore")]
mod signed_images;
mod workload_decides;
