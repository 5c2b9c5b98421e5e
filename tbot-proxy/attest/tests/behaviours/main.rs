//! Attestation of real processes: in containers, pods and units, and of those that
//! pretend to be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attacks;
mod containers;
mod counted;
mod hanging;
mod kubernetes;
#[cfg(feature = "sigstore")]
mod signatures;
mod support;
mod units;
