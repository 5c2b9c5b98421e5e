//! Who may: rules over SPIFFE IDs, and why they decided as they did. No I/O.

pub mod peer;

pub use peer::{Decision, PathPrefix, PeerPolicy, PeerRule};
