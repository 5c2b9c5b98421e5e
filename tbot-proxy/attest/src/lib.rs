//! Who a local process is: pinned by pidfd, described by the kernel and by the
//! container runtimes of this machine.
//!
//! [`Process`] is the handle: it stands for one process and never for another that
//! got its number. [`Attestors`] read facts through it and give an [`Attestation`]:
//! the tree that rules and templates of the issuer know as `workload`. The parsers of
//! what kernel and runtimes answer are pure functions from bytes to facts.

mod attestation;
mod attestor;
pub mod container;
mod engine;
mod kubernetes;
mod owners;
pub mod process;
pub mod procfs;
#[cfg(feature = "sigstore")]
pub mod sigstore;
mod systemd;
mod unix;

pub use self::{
    attestation::{Attestation, Attestors, Config},
    attestor::Failure,
    engine::{EngineConfig, inspect},
    kubernetes::{KubeletVerification, KubernetesConfig, PodError, PodReference, pods},
    owners::Owners,
    process::{Process, ProcessError, ProcessKey, Processes},
    systemd::SystemdConfig,
    unix::UnixConfig,
};
