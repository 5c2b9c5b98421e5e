//! One attestor: a name, and what it finds.

use std::time::Instant;

use serde_json::Value;

use crate::{
    engine::{Engine, Kind},
    kubernetes::Kubernetes,
    process::Process,
    systemd::Systemd,
    unix::Unix,
};

/// An attestor that did not say all that it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Its name, which is that of its group of attributes: `unix`, `kubernetes`, ….
    pub attestor: &'static str,
    /// Why, for people.
    pub reason: String,
}

/// What an attestor found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Its group, if it attests the process.
    pub(crate) attributes: Option<Value>,
    /// What is absent that could be there, and why.
    pub(crate) failures: Vec<String>,
    /// Why this attestor has nothing to say of the process, if that is no failure.
    pub(crate) not_applicable: Option<String>,
}

impl Found {
    pub(crate) fn failed(reason: impl ToString) -> Self {
        Self {
            failures: vec![reason.to_string()],
            ..Self::default()
        }
    }

    pub(crate) fn not_applicable(reason: impl ToString) -> Self {
        Self {
            not_applicable: Some(reason.to_string()),
            ..Self::default()
        }
    }
}

/// The attestors that there are.
#[derive(Debug)]
pub(crate) enum Attestor {
    Unix(Unix),
    Systemd(Systemd),
    Engine(Engine),
    Kubernetes(Kubernetes),
}

impl Attestor {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unix(_) => "unix",
            Self::Systemd(_) => "systemd",
            Self::Engine(engine) => match engine.kind() {
                Kind::Docker => "docker",
                Kind::Podman => "podman",
            },
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Asks it. It should be done by the deadline, and is dropped then.
    pub(crate) async fn attest(&self, process: &Process, deadline: Instant) -> Found {
        match self {
            Self::Unix(unix) => unix.attest(process, deadline).await,
            Self::Systemd(systemd) => systemd.attest(process),
            Self::Engine(engine) => engine.attest(process).await,
            Self::Kubernetes(kubernetes) => kubernetes.attest(process, deadline).await,
        }
    }
}
