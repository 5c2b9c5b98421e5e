//! The certificate authority and system of record of a trust domain.
//!
//! The issuer learns who asks ([`join`]), decides by policy ([`access`]), signs
//! short-lived SPIFFE documents ([`authority`], [`issue`]) and records every
//! decision before its answer leaves ([`audit`], [`store`]); what decisions read is
//! in memory ([`catalog`]). [`serve`] puts it
//! together; [`api`] is what the network sees; [`cli`] is what the operator types.

pub mod access;
pub mod api;
pub mod audit;
pub mod authority;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod explain;
pub mod issue;
pub mod join;
pub mod metrics;
pub mod readiness;
pub mod resources;
pub mod serve;
pub mod service;
pub mod signatures;
pub mod store;
#[cfg(test)]
mod world;
