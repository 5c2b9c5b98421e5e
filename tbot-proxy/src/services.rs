//! The running services, and how a changed configuration becomes what runs.
//!
//! [`Services::apply`] compares what runs with what is wanted. What is the same is
//! not touched. A changed proxy takes its change without touching its listener if
//! it can. Everything new is started, and every new address bound, before anything
//! old is stopped: if that fails, all is as before. What is stopped drains in the
//! background; its live connections have the grace to end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxy::{Address, ProxyService, RecordSink, ServiceConfig, StartError};
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    configuration::{Selector, Service, ServiceKind},
    link::IssuerLink,
    metrics::{SVID_EXPIRY, timestamp},
    output::OutputTask,
    state::{Health, IdentityState},
    svid::KeptIdentity,
    trust::Trust,
};

/// How long an address may take to come free when one of our own services gives it up.
const HANDOVER: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Services {
    pub(crate) link: Arc<IssuerLink>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) bot: watch::Receiver<IdentityState>,
    pub(crate) health: Health,
    pub(crate) sink: Arc<dyn RecordSink>,
    /// The runtime of the data path.
    pub(crate) data: Handle,
    pub(crate) identities: BTreeMap<Selector, Arc<KeptIdentity>>,
    pub(crate) running: BTreeMap<String, Running>,
    pub(crate) draining: JoinSet<()>,
}

/// A running service with what it runs by.
pub(crate) struct Running {
    service: Service,
    work: Work,
    /// Kept for as long as a service uses it.
    _identity: Arc<KeptIdentity>,
}

enum Work {
    Output {
        _task: OutputTask,
    },
    Proxy {
        proxy: ProxyService,
        _readiness: AbortOnDropHandle<()>,
    },
}

impl Services {
    /// Makes `wanted` what runs. On failure nothing has changed.
    pub(crate) async fn apply(
        &mut self,
        wanted: &[Service],
        grace: Duration,
    ) -> Result<(), StartError> {
        let mut updates = vec![];
        let mut starts = vec![];
        for service in wanted {
            match self.running.get(&service.name) {
                Some(running) if running.service == *service => {}
                Some(running) if running.can_become(service) => updates.push(service),
                _ => starts.push(service),
            }
        }
        let stops: Vec<String> = self
            .running
            .keys()
            .filter(|name| {
                let stays = wanted.iter().any(|service| service.name == **name);
                !stays || starts.iter().any(|service| service.name == **name)
            })
            .cloned()
            .collect();
        let given_up: Vec<&Address> = stops
            .iter()
            .filter_map(|name| self.running.get(name)?.service.listen())
            .collect();
        let (handed_over, free): (Vec<_>, Vec<_>) = starts.into_iter().partition(|service| {
            service
                .listen()
                .is_some_and(|listen| given_up.contains(&listen))
        });
        let mut started = vec![];
        for service in free {
            match self.start(service) {
                Ok(running) => started.push(running),
                Err(error) => {
                    self.take_back(started);
                    return Err(error);
                }
            }
        }
        for service in updates {
            self.update(service)?;
        }
        for name in &stops {
            self.stop(name, grace);
        }
        for running in started {
            self.running.insert(running.service.name.clone(), running);
        }
        for service in handed_over {
            self.start_after_handover(service).await;
        }
        for name in &stops {
            if !wanted.iter().any(|service| service.name == *name) {
                self.health.remove(name);
            }
        }
        self.forget_unused();
        Ok(())
    }

    /// Stops everything; returns when every connection has ended or the grace has.
    pub(crate) async fn drain(&mut self, grace: Duration) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.stop(&name, grace);
        }
        while self.draining.join_next().await.is_some() {}
    }

    fn start(&mut self, service: &Service) -> Result<Running, StartError> {
        let identity = self.identity(&service.selector);
        let work = match &service.kind {
            ServiceKind::X509Output(output) => Work::Output {
                _task: OutputTask::start(
                    service.name.clone(),
                    output.directory.clone(),
                    &identity,
                    self.health.clone(),
                ),
            },
            ServiceKind::Proxy(config) => Work::Proxy {
                proxy: ProxyService::start(
                    ServiceConfig::clone(config),
                    identity.source.clone(),
                    self.sink.clone(),
                    &self.data,
                )?,
                _readiness: follow(service.name.clone(), &identity, self.health.clone()),
            },
        };
        Ok(Running {
            service: service.clone(),
            work,
            _identity: identity,
        })
    }

    /// Starts one on an address that a service of ours is giving up.
    async fn start_after_handover(&mut self, service: &Service) {
        let deadline = Instant::now() + HANDOVER;
        loop {
            match self.start(service) {
                Ok(running) => {
                    self.running.insert(service.name.clone(), running);
                    return;
                }
                Err(StartError::InUse { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => {
                    tracing::error!(%error, "service not started: reload to try again");
                    self.health.not_ready(&service.name, error.to_string());
                    return;
                }
            }
        }
    }

    fn update(&mut self, service: &Service) -> Result<(), StartError> {
        let Some(running) = self.running.get_mut(&service.name) else {
            return Ok(());
        };
        if let (Work::Proxy { proxy, .. }, ServiceKind::Proxy(config)) =
            (&running.work, &service.kind)
        {
            proxy.update(ServiceConfig::clone(config))?;
            tracing::info!(service = service.name, "changed");
        }
        running.service = service.clone();
        Ok(())
    }

    fn stop(&mut self, name: &str, grace: Duration) {
        let Some(running) = self.running.remove(name) else {
            return;
        };
        tracing::info!(service = name, "stopping");
        if let Work::Proxy { proxy, _readiness } = running.work {
            let name = name.to_owned();
            self.draining.spawn(async move {
                let cut = proxy.drain(grace).await;
                if cut > 0 {
                    tracing::warn!(
                        service = name,
                        connections = cut,
                        "cut at the end of the grace"
                    );
                }
            });
        }
        while self.draining.try_join_next().is_some() {}
    }

    /// Stops what was started for a change that does not come about.
    fn take_back(&mut self, started: Vec<Running>) {
        for running in started {
            let name = running.service.name.clone();
            drop(running);
            if !self.running.contains_key(&name) {
                self.health.remove(&name);
            }
        }
        self.forget_unused();
    }

    fn identity(&mut self, selector: &Selector) -> Arc<KeptIdentity> {
        // A changed life of the same identity must not interrupt it.
        let meanwhile = self
            .identities
            .iter()
            .filter(|(other, _)| other.workload_identity == selector.workload_identity)
            .find_map(|(_, identity)| identity.source.current().svid.clone());
        let start = || {
            Arc::new(KeptIdentity::start(
                selector.clone(),
                self.link.clone(),
                self.trust.clone(),
                self.bot.clone(),
                meanwhile,
            ))
        };
        self.identities
            .entry(selector.clone())
            .or_insert_with(start)
            .clone()
    }

    fn forget_unused(&mut self) {
        self.identities
            .retain(|_, identity| Arc::strong_count(identity) > 1);
    }
}

impl Running {
    /// Whether it can take a change without being stopped.
    fn can_become(&self, service: &Service) -> bool {
        match (&self.service.kind, &service.kind) {
            (ServiceKind::Proxy(old), ServiceKind::Proxy(new)) => {
                self.service.selector == service.selector
                    && old.direction == new.direction
                    && old.listen == new.listen
            }
            _ => false,
        }
    }
}

impl Service {
    fn listen(&self) -> Option<&Address> {
        match &self.kind {
            ServiceKind::Proxy(config) => Some(&config.listen),
            ServiceKind::X509Output(_) => None,
        }
    }
}

/// Tells of a proxy what is so of its identity: its listener is there for as long as it runs.
fn follow(name: String, identity: &KeptIdentity, health: Health) -> AbortOnDropHandle<()> {
    let mut state = identity.state.clone();
    let mut changes = identity.source.subscribe();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let IdentityState { held, reason } = state.borrow_and_update().clone();
            let expiry = match &changes.borrow_and_update().svid {
                Some(svid) => timestamp(svid.not_after()),
                None => 0.0,
            };
            metrics::gauge!(SVID_EXPIRY, "service" => name.clone()).set(expiry);
            if held {
                health.ready(&name, reason);
            } else {
                health.not_ready(&name, reason.unwrap_or_else(|| "no SVID yet".to_owned()));
            }
            tokio::select! {
                Ok(()) = state.changed() => {}
                Ok(()) = changes.changed() => {}
                else => return,
            }
        }
    }))
}
