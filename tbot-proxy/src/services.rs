//! The running services, and how a changed configuration becomes what runs.
//!
//! [`Services::apply`] compares what runs with what is wanted. What is the same is
//! not touched. What can take its change without its listener being touched does.
//! New addresses are bound before anything old is stopped: if that fails, all is as
//! before. Only what needs a place that a service of ours gives up (an address, the
//! files of an output) starts after that one has let go. What is stopped drains in the
//! background: its live connections have the grace to end, under the policy that is
//! in force by then.

mod draining;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use ::output::destination::MemoryOutputs;
use attest::Attestors;
use proxy::{ProxyService, RecordSink, ServiceConfig, StartError};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    cache::Cache,
    configuration::{Document, Output, Selector, Service, ServiceKind, SharedAddress},
    jwt::{JwtWish, KeptToken},
    kept::Keeping,
    output::{AtEnd, Origin, OutputPlace, OutputTask, Progress},
    sealed::Whom,
    served::Served,
    state::Health,
    svid::KeptIdentity,
    workload::{ApiTask, WorkloadIdentities},
};

pub(crate) use draining::Draining;

/// How long places may take to come free when our own services give them up.
const HANDOVER: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Services {
    pub(crate) keeping: Keeping,
    pub(crate) health: Health,
    pub(crate) sink: Arc<dyn RecordSink>,
    /// The runtime of the data path.
    pub(crate) data: Handle,
    /// Where the bot identity is kept: no place for an output.
    pub(crate) storage: Option<PathBuf>,
    /// What outputs keep in this process.
    pub(crate) memory: MemoryOutputs,
    /// Whether what outputs wrote is removed when the process ends.
    pub(crate) wipe_on_exit: bool,
    /// Each is kept for as long as a service uses it.
    pub(crate) identities: BTreeMap<Selector, Weak<KeptIdentity>>,
    pub(crate) running: BTreeMap<String, Running>,
    pub(crate) draining: Draining,
    /// What workloads share.
    pub(crate) cache: Arc<Cache>,
    /// Workload and Broker APIs that have given up their address, and whose connections close.
    pub(crate) closing: Vec<AbortOnDropHandle<()>>,
}

/// A running service with what it runs by.
pub(crate) struct Running {
    service: Service,
    work: Work,
}

enum Work {
    Output {
        task: OutputTask,
        /// The identity that it is made from; a JWT output has a token of its own instead.
        served: Option<Served>,
    },
    Proxy {
        proxy: ProxyService,
        served: Served,
        _readiness: AbortOnDropHandle<()>,
    },
    Api(ApiTask),
}

/// What is to be done so that what is wanted runs.
struct Changes<'a> {
    updates: Vec<&'a Service>,
    /// Names.
    stops: Vec<String>,
    starts: Vec<&'a Service>,
    /// Those that need a place which is being given up.
    late_starts: Vec<&'a Service>,
}

impl Services {
    /// Makes `wanted` what runs; the services that could not be started on what others
    /// gave up, and why. On failure nothing has changed.
    pub(crate) async fn apply(
        &mut self,
        wanted: &[Service],
        grace: Duration,
    ) -> Result<Vec<StartError>, StartError> {
        wanted
            .iter()
            .filter_map(Service::proxy)
            .try_for_each(ServiceConfig::check)?;
        let changes = self.changes(wanted);
        let mut started = vec![];
        for service in changes.starts {
            match self.start(service) {
                Ok(running) => started.push(running),
                Err(error) => {
                    self.take_back(started);
                    return Err(error);
                }
            }
        }
        let mut failures = vec![];
        for service in changes.updates {
            failures.extend(self.update(service).err());
        }
        self.hold_to_new_policies(&changes.stops, wanted);
        let deadline = Instant::now() + HANDOVER;
        let writers: Vec<_> = changes
            .stops
            .iter()
            .filter_map(|name| self.stop(name, grace, self.at_end(name, wanted)))
            .collect();
        for running in started {
            self.running.insert(running.service.name.clone(), running);
        }
        for writer in writers {
            _ = timeout_at(deadline, writer).await;
        }
        failures.extend(self.start_late(changes.late_starts, deadline).await);
        for name in self.health.entries().into_keys() {
            if !wanted.iter().any(|service| service.name == name) {
                self.health.remove(&name);
            }
        }
        Ok(failures)
    }

    /// What becomes of what a service wrote that `wanted` has not: if nothing is to be left
    /// when the process ends, nothing is left in places that it gives up before.
    fn at_end(&self, name: &str, wanted: &[Service]) -> AtEnd {
        let old = self.running.get(name).map(|running| &running.service.kind);
        let Some(ServiceKind::Output(old)) = old.filter(|_| self.wipe_on_exit) else {
            return AtEnd::Keep;
        };
        let has_heir = wanted.iter().any(|service| match &service.kind {
            ServiceKind::Output(new) => new.takes_the_place_of(old),
            _ => false,
        });
        match has_heir {
            true => AtEnd::Keep,
            false => AtEnd::Remove,
        }
    }

    /// Removes from the sealed store what no service would use.
    pub(crate) fn forget_others(&self, wanted: &[Service]) {
        self.keeping.sealed.retain(|name, _| {
            let (selector, _) = name.place();
            wanted.iter().any(|service| match (&service.kind, name.whom()) {
                (ServiceKind::Output(_) | ServiceKind::Proxy(_), Whom::Service)
                | (ServiceKind::WorkloadApi(_) | ServiceKind::BrokerApi(_), Whom::Workloads) => {
                    service.selector == *selector
                }
                (ServiceKind::BrokerApi(api), Whom::Service) => api.identity == selector.selection,
                _ => false,
            })
        });
    }

    /// Stops everything; returns when every connection has ended or the grace has.
    pub(crate) async fn drain(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let at_end = match self.wipe_on_exit {
            true => AtEnd::Remove,
            false => AtEnd::Keep,
        };
        let names: Vec<_> = self.running.keys().cloned().collect();
        let writers: Vec<_> = names
            .iter()
            .filter_map(|name| self.stop(name, grace, at_end))
            .collect();
        self.draining.end(grace).await;
        for closing in self.closing.drain(..) {
            _ = timeout_at(deadline, closing).await;
        }
        // What is to be removed is, however short the grace for connections is.
        let deadline = deadline.max(Instant::now() + HANDOVER);
        for writer in writers {
            _ = timeout_at(deadline, writer).await;
        }
    }

    fn changes<'a>(&self, wanted: &'a [Service]) -> Changes<'a> {
        let (mut updates, mut starts) = (vec![], vec![]);
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
        // A service that was stopped a moment ago may hold its address still.
        let mut given_up: Vec<_> = self
            .draining
            .proxies()
            .filter_map(|proxy| SharedAddress::of(&proxy.config().listen))
            .collect();
        given_up.extend(
            stops
                .iter()
                .filter_map(|name| self.running.get(name)?.service.listen()),
        );
        let (late_starts, starts) = starts.into_iter().partition(|service| match &service.kind {
            ServiceKind::Output(_) => true,
            ServiceKind::Proxy(_) | ServiceKind::WorkloadApi(_) | ServiceKind::BrokerApi(_) => {
                service
                    .listen()
                    .is_some_and(|listen| given_up.iter().any(|other| other.clashes(&listen)))
            }
        });
        Changes {
            updates,
            stops,
            starts,
            late_starts,
        }
    }

    /// What drains, and what is about to, is held to the policy of the service that takes
    /// its place: the one of its name, or else of its address.
    fn hold_to_new_policies(&self, stops: &[String], wanted: &[Service]) {
        let draining: Vec<_> = self.draining.proxies().collect();
        let stopping = stops
            .iter()
            .filter_map(|name| match &self.running.get(name)?.work {
                Work::Proxy { proxy, .. } => Some(proxy),
                Work::Output { .. } | Work::Api(_) => None,
            });
        for proxy in stopping.chain(draining.iter().map(Arc::as_ref)) {
            let old = proxy.config();
            let listen = SharedAddress::of(&old.listen);
            let heirs = || wanted.iter().filter_map(Service::proxy);
            let of_name = heirs().find(|new| new.name == old.name);
            let of_address = || heirs().find(|new| SharedAddress::of(&new.listen) == listen);
            let Some(heir) = of_name.or_else(of_address) else {
                continue;
            };
            let mut config = ServiceConfig::clone(&old);
            config.peers = heir.peers.clone();
            config.on_expiry = heir.on_expiry;
            config.limits.lease_grace = heir.limits.lease_grace;
            if let Err(error) = proxy.update(config) {
                tracing::error!(%error, "the new policy does not reach what drains");
            }
        }
    }

    fn start(&mut self, service: &Service) -> Result<Running, StartError> {
        let work = match &service.kind {
            ServiceKind::Output(output) => self.start_output(service, output),
            ServiceKind::Proxy(config) => {
                let served = Served::by(self.identity(&service.selector));
                Work::Proxy {
                    proxy: ProxyService::start(
                        ServiceConfig::clone(config),
                        served.source().clone(),
                        self.sink.clone(),
                        &self.data,
                    )?,
                    _readiness: served.tell(service.name.clone(), self.health.clone()),
                    served,
                }
            }
            ServiceKind::WorkloadApi(api) => Work::Api(ApiTask::workload_api(
                &service.name,
                api,
                self.workloads(service, &api.attestors),
                self.keeping.bot.clone(),
                self.health.clone(),
            )?),
            ServiceKind::BrokerApi(api) => {
                let own = Served::by(self.identity(&Selector {
                    selection: api.identity.clone(),
                    ttl: service.selector.ttl,
                }));
                Work::Api(ApiTask::broker_api(
                    &service.name,
                    api,
                    self.workloads(service, &api.attestors),
                    own,
                    self.health.clone(),
                )?)
            }
        };
        Ok(Running {
            service: service.clone(),
            work,
        })
    }

    fn workloads(&self, service: &Service, attestors: &attest::Config) -> WorkloadIdentities {
        WorkloadIdentities::new(
            service.selector.clone(),
            self.cache.clone(),
            Arc::new(Attestors::new(attestors.clone())),
        )
    }

    fn start_output(&mut self, service: &Service, output: &Output) -> Work {
        let place = OutputPlace {
            storage: self.storage.clone(),
            memory: self.memory.clone(),
            health: self.health.clone(),
        };
        let name = service.name.clone();
        if let Document::Jwt { audiences, ttl } = &output.document {
            let wish = JwtWish {
                selection: service.selector.selection.clone(),
                audiences: audiences.clone(),
                ttl: *ttl,
            };
            let token = KeptToken::start(wish, self.keeping.clone());
            return Work::Output {
                task: OutputTask::start(name, output, Origin::Token(token), place),
                served: None,
            };
        }
        let served = Served::by(self.identity(&service.selector));
        Work::Output {
            task: OutputTask::start(name, output, Origin::Identity(&served), place),
            served: Some(served),
        }
    }

    /// What has come of the first write of each output, by name.
    pub(crate) fn progress(&self) -> Vec<(String, watch::Receiver<Progress>)> {
        let outputs = self.running.iter().filter_map(|(name, running)| {
            let Work::Output { task, .. } = &running.work else {
                return None;
            };
            Some((name.clone(), task.progress()))
        });
        outputs.collect()
    }

    /// Starts those whose places come free until `deadline`; why the others are not.
    async fn start_late(&mut self, services: Vec<&Service>, deadline: Instant) -> Vec<StartError> {
        let mut failures = vec![];
        let mut waiting = services;
        loop {
            let mut occupied = vec![];
            for service in waiting {
                match self.start(service) {
                    Ok(running) => {
                        self.running.insert(service.name.clone(), running);
                    }
                    Err(StartError::InUse { .. }) if Instant::now() < deadline => {
                        occupied.push(service);
                    }
                    Err(error) => {
                        self.health.not_ready(&service.name, error.to_string());
                        failures.push(error);
                    }
                }
            }
            if occupied.is_empty() {
                return failures;
            }
            waiting = occupied;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn update(&mut self, service: &Service) -> Result<(), StartError> {
        let changed = |running: &Running| running.service.selector != service.selector;
        let is_other = self.running.get(&service.name).is_some_and(changed);
        let identity = is_other.then(|| self.identity(&service.selector));
        let Some(running) = self.running.get_mut(&service.name) else {
            return Ok(());
        };
        if let (Work::Proxy { proxy, .. }, ServiceKind::Proxy(config)) =
            (&running.work, &service.kind)
        {
            proxy.update(ServiceConfig::clone(config))?;
        }
        let served = match &running.work {
            Work::Output { served, .. } => served.as_ref(),
            Work::Proxy { served, .. } => Some(served),
            Work::Api(_) => None,
        };
        if let (Some(identity), Some(served)) = (identity, served) {
            served.follow(identity);
        }
        running.service = service.clone();
        tracing::info!(service = service.name, "changed");
        Ok(())
    }

    /// Stops one. An output is to be waited for: it may be writing.
    fn stop(
        &mut self,
        name: &str,
        grace: Duration,
        at_end: AtEnd,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let Running { work, .. } = self.running.remove(name)?;
        tracing::info!(service = name, "stopping");
        match work {
            Work::Output { task, .. } => Some(task.stop(at_end)),
            Work::Proxy {
                proxy,
                served,
                _readiness,
            } => {
                self.draining.begin(proxy, served, grace);
                None
            }
            Work::Api(task) => {
                self.closing.retain(|closing| !closing.is_finished());
                self.closing.push(task.stop());
                None
            }
        }
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
    }

    fn identity(&mut self, selector: &Selector) -> Arc<KeptIdentity> {
        self.identities
            .retain(|_, identity| identity.strong_count() > 0);
        if let Some(identity) = self.identities.get(selector).and_then(Weak::upgrade) {
            return identity;
        }
        // A changed life of the same identity must not interrupt it.
        let meanwhile = self
            .identities
            .iter()
            .filter(|(other, _)| other.selection == selector.selection)
            .filter_map(|(_, identity)| Some(identity.upgrade()?.held()))
            .max_by_key(|held| held.expiry());
        let identity = Arc::new(KeptIdentity::start(
            selector.clone(),
            self.keeping.clone(),
            meanwhile.as_deref(),
        ));
        self.identities
            .insert(selector.clone(), Arc::downgrade(&identity));
        identity
    }
}

impl Running {
    /// Whether it can take a change without being stopped.
    fn can_become(&self, service: &Service) -> bool {
        let same_place = match (&self.service.kind, &service.kind) {
            (ServiceKind::Proxy(old), ServiceKind::Proxy(new)) => {
                old.direction == new.direction && old.listen == new.listen
            }
            (ServiceKind::Output(old), ServiceKind::Output(new)) => old == new,
            // Those whom they serve follow sets of the selector that they began with.
            _ => false,
        };
        same_place && self.service.selector.selection == service.selector.selection
    }
}

impl Service {
    fn proxy(&self) -> Option<&ServiceConfig> {
        match &self.kind {
            ServiceKind::Proxy(config) => Some(config),
            ServiceKind::Output(_) | ServiceKind::WorkloadApi(_) | ServiceKind::BrokerApi(_) => {
                None
            }
        }
    }

    fn listen(&self) -> Option<SharedAddress> {
        match &self.kind {
            ServiceKind::Proxy(config) => SharedAddress::of(&config.listen),
            ServiceKind::WorkloadApi(api) => SharedAddress::of(&api.listen),
            ServiceKind::BrokerApi(api) => SharedAddress::of(&api.listen),
            ServiceKind::Output(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
