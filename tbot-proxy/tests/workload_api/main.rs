//! The Workload API of the agent, before a real issuer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cache_is_shared;
<<<<<<< HEAD
mod containers;
=======
mod conformance;
>>>>>>> 6bc82ca (tbot-proxy: every norm that a client can see, asked of the agent; SDS goes on for clients that have said all)
mod issuer_away;
mod policy_reaches_streams;
mod rig;
mod workload_decides;
