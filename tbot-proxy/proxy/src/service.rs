//! A running service: what is in force, and how it changes and ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use identity::IdentitySource;
use policy::Decision;
use rustix::process::{Resource, getrlimit};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, timeout},
};

use crate::{
    Address, CloseReason, Direction, RecordSink, ServiceConfig, StartError, accept,
    close_reason::Close, lease, listener::Listener, meters::Meters, registry::Registry,
    resolver::Resolver, tls::Tls,
};

/// How long a drain waits for tasks that it has cut. They end at once, unless their threads are starved.
const CUT_TAKES_AT_MOST: Duration = Duration::from_secs(5);

/// A running service. Dropping it (rather than [`ProxyService::drain`]) stops it at once and cuts what lives.
pub struct ProxyService {
    service: Arc<Service>,
    local_addr: Address,
    updating: Mutex<()>,
    /// The accept loop and what stops it, until a drain takes them.
    listening: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
    accepting: AbortHandle,
    leases: AbortHandle,
}

impl ProxyService {
    /// Binds and starts to serve on `runtime` (the data runtime). Connections are refused until `identity` has an SVID.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be served, an address that cannot be listened on; nothing runs then.
    pub fn start(
        config: ServiceConfig,
        identity: Arc<IdentitySource>,
        sink: Arc<dyn RecordSink>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        config.check()?;
        // Sockets belong to the runtime in which they are made.
        let _entered = runtime.enter();
        let listener = Listener::bind(&config.name, &config.listen)?;
        let local_addr = listener.local_addr().map_err(|source| StartError::Listen {
            service: config.name.clone(),
            address: config.listen.clone(),
            source,
        })?;
        tracing::info!(
            service = config.name, direction = config.direction.as_str(),
            listen = %local_addr, connect = %config.connect, "service listens"
        );
        let service = Arc::new(Service::new(config, identity, sink));
        let (stop, stopped) = oneshot::channel();
        let changes = service.source.subscribe();
        let accepting = runtime.spawn(accept::run(Arc::clone(&service), listener, stopped));
        Ok(Self {
            local_addr,
            updating: Mutex::default(),
            accepting: accepting.abort_handle(),
            listening: Mutex::new(Some((stop, accepting))),
            leases: runtime
                .spawn(lease::keep(Arc::clone(&service), changes))
                .abort_handle(),
            service,
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<ServiceConfig> {
        Arc::clone(&self.service.in_force().config)
    }

    /// Puts a changed configuration in force without touching the listener: live connections that the new policy refuses are cut.
    ///
    /// Deadlines of the relay hold for connections that are made from now on; `lease_grace` and `on_expiry` for all.
    ///
    /// # Errors
    ///
    /// Fails (and changes nothing) if `listen`, `direction` or `name` differ: then drain this one and start another.
    pub fn update(&self, config: ServiceConfig) -> Result<(), StartError> {
        config.check()?;
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        self.service.unchangeable(&config)?;
        self.service.put_in_force(config);
        Ok(())
    }

    /// Address listened on (with the real port for port 0).
    pub fn local_addr(&self) -> Address {
        self.local_addr.clone()
    }

    /// Live connections, those in their handshake too.
    pub fn connections(&self) -> usize {
        self.service.registry.open()
    }

    /// Stops accepting, waits for live connections up to `deadline`, then cuts the rest. Returns how many were cut.
    ///
    /// What clients have connected by now is served: the kernel's queue is emptied before the listener is closed. At the
    /// return every connection has its record, and the file of a Unix socket is gone.
    pub async fn drain(self, deadline: Duration) -> usize {
        self.drain_until(sleep(deadline)).await
    }

    /// As [`ProxyService::drain`], until `end`. It can be [updated](ProxyService::update) meanwhile: whom the policy of
    /// that moment refuses is cut. A second drain cuts what lives at its own end.
    pub async fn drain_until(&self, end: impl Future<Output = ()>) -> usize {
        let began = Instant::now();
        let listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((stop, accepting)) = listening {
            drop(stop);
            if let Err(error) = accepting.await {
                tracing::debug!(service = self.service.name, %error, "the accept loop had ended");
            }
        }
        tokio::select! {
            biased;
            () = self.service.emptied() => return 0,
            () = end => {}
        }
        let detail = format!("still open {:.1?} after the drain began", began.elapsed());
        let close = Close::new(CloseReason::Drained, detail);
        let cut = self.service.registry.cut_everything(&close);
        if timeout(CUT_TAKES_AT_MOST, self.service.emptied())
            .await
            .is_err()
        {
            tracing::warn!(
                service = self.service.name,
                open = self.connections(),
                "cut connections are not gone yet"
            );
        }
        cut
    }
}

impl Drop for ProxyService {
    fn drop(&mut self) {
        self.accepting.abort();
        self.leases.abort();
        let close = Close::new(CloseReason::Stopped, "the service was stopped");
        self.service.registry.shut(&close);
    }
}

/// Files that are not the connections' of a service: listeners, logs, the link to the issuer, a connection that
/// waits for room.
const RESERVED_FILES: u64 = 64;

/// How many connections may be open: `max_connections`, or as many as the limit of open files allows, two to each.
///
/// Without this, peers that have proven nothing could use up the files, and those that have would fail when the
/// application is dialled. Says so, for `max_connections` is what was asked for.
fn max_connections(config: &ServiceConfig) -> usize {
    let asked = config.limits.max_connections;
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return asked;
    };
    let possible = within_files(asked, files);
    if possible < asked {
        tracing::warn!(
            service = config.name,
            max_connections = asked,
            in_force = possible,
            files,
            "the limit of open files holds fewer connections than max_connections; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    possible
}

/// At least one, whatever the limit.
fn within_files(asked: usize, files: u64) -> usize {
    let possible = files.saturating_sub(RESERVED_FILES) / 2;
    asked.min(usize::try_from(possible).unwrap_or(usize::MAX).max(1))
}

/// What the connections of a service share.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) direction: Direction,
    pub(crate) source: Arc<IdentitySource>,
    pub(crate) sink: Arc<dyn RecordSink>,
    pub(crate) meters: Meters,
    pub(crate) registry: Registry,
    pub(crate) resolver: Resolver,
    in_force: ArcSwap<InForce>,
    /// What a test has happen between two steps of an admission.
    #[cfg(test)]
    pub(crate) between_steps: crate::connection::BetweenSteps,
}

impl Service {
    pub(crate) fn new(
        config: ServiceConfig,
        source: Arc<IdentitySource>,
        sink: Arc<dyn RecordSink>,
    ) -> Self {
        let tls = Tls::new(&source, &config);
        Self {
            name: config.name.clone(),
            direction: config.direction,
            meters: Meters::new(&config.name, config.direction),
            sink,
            source,
            registry: Registry::default(),
            resolver: Resolver::default(),
            in_force: ArcSwap::from_pointee(InForce {
                max_connections: max_connections(&config),
                config: Arc::new(config),
                tls,
            }),
            #[cfg(test)]
            between_steps: crate::connection::BetweenSteps::default(),
        }
    }

    /// Configuration and TLS of this moment. To be read anew by each step, not kept.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Rises with each change of the trust bundles.
    pub(crate) fn trust_generation(&self) -> u64 {
        self.source.current().bundle_generation
    }

    fn unchangeable(&self, config: &ServiceConfig) -> Result<(), StartError> {
        let old = &self.in_force().config;
        let refuse = |field, from: String, to: String| {
            Err(StartError::Unchangeable {
                service: self.name.clone(),
                field,
                from,
                to,
            })
        };
        if old.name != config.name {
            return refuse("name", old.name.clone(), config.name.clone());
        }
        if old.direction != config.direction {
            let text = |direction: Direction| direction.as_str().to_owned();
            return refuse("direction", text(old.direction), text(config.direction));
        }
        if old.listen != config.listen {
            return refuse("listen", old.listen.to_string(), config.listen.to_string());
        }
        Ok(())
    }

    /// In force first, then the walk over what lives: see `Connection::admit` for why in this order.
    pub(crate) fn put_in_force(&self, config: ServiceConfig) {
        let old = self.in_force();
        let of_tls =
            |config: &ServiceConfig| (config.resumption, config.tls12, config.connect.clone());
        let other_policy = old.config.peers != config.peers;
        let tls = if of_tls(&old.config) != of_tls(&config) {
            Tls::new(&self.source, &config)
        } else {
            old.tls.clone()
        };
        let config = Arc::new(config);
        self.in_force.store(Arc::new(InForce {
            max_connections: max_connections(&config),
            config: Arc::clone(&config),
            tls: tls.clone(),
        }));
        if other_policy {
            tls.forget_sessions();
            self.registry
                .cut_peers(|peer| match config.peers.decide(&peer.id) {
                    Decision::Allowed(_) => None,
                    refused => Some(Close::new(
                        CloseReason::PolicyChanged,
                        format_args!("{refused}, by the policy put in force while it lived"),
                    )),
                });
        }
        self.registry.released.notify_one();
        self.registry.renew_expiries();
    }

    /// Waits until no connection is open.
    async fn emptied(&self) {
        while self.registry.open() > 0 {
            self.registry.emptied.notified().await;
        }
    }
}

/// Configuration and TLS that belong together.
pub(crate) struct InForce {
    pub(crate) config: Arc<ServiceConfig>,
    pub(crate) tls: Tls,
    /// `Limits::max_connections`, as far as there are files for them.
    pub(crate) max_connections: usize,
}

#[cfg(test)]
mod tests;
