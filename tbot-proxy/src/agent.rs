//! The agent as a whole: what it is made of, how it starts, changes and ends.
//!
//! Two runtimes (DESIGN D12): *control* joins, renews, writes outputs and answers
//! diagnostics; *data* carries traffic, one worker a core. Listeners are bound
//! first, so that an address in use is known at once; the issuer may be away for as
//! long as it likes.

use std::{
    io,
    ops::ControlFlow,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use identity::IdentitySource;
use proxy::StartError;
use sealed_store::StoreError;
use telemetry::LogLevel;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    bot::Bot,
    cache::Cache,
    configuration::{
        Configuration, ConfigurationError, Onboarding, Overrides, ServiceKind, Source, Storage,
    },
    debug::Debug,
    diagnostics::Diagnostics,
    issuance::Issuance,
    join::JoinError,
    kept::{Keeping, Roll},
    link::{Addresses, IssuerLink},
    metrics::{RELOADS, result},
    output::Progress,
    records::{Records, RecordsError, Writer},
    sealed::{BotName, Sealed},
    services::{Draining, Services},
    state::{Health, IdentityState},
    storage::{BotStorage, StorageError},
    systemd,
    trust::Trust,
};

/// How long the agent runs, and what it leaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Term {
    /// Every output once, within this time; `None`: until it is told to end.
    pub once: Option<Duration>,
    /// What outputs wrote is removed at the end.
    pub wipe_on_exit: bool,
}

/// Runs the agent until it is told to end, has done all that is to be done once, or cannot go on.
pub fn run(
    source: Source,
    overrides: Overrides,
    term: Term,
    level: (LogLevel, String),
) -> Result<ExitCode, AgentError> {
    let configuration = Configuration::read(&source, &overrides)?;
    if term.once.is_some() {
        refuse_long_running(&configuration)?;
    }
    let control = runtime("control", Some(2))?;
    let data = runtime("data", None)?;
    let (outcome, writer) = control.block_on(async {
        match Agent::start(source, overrides, configuration, term, level, data.handle()).await {
            Ok((agent, writer)) => match term.once {
                Some(limit) => (agent.once(limit).await, writer),
                None => (agent.serve().await, writer),
            },
            Err(error) => (Err(error), None),
        }
    });
    // In this order: what the end of the data path cuts is recorded too.
    data.shutdown_timeout(Duration::from_secs(1));
    if let Some(writer) = writer {
        writer.finish();
    }
    control.shutdown_timeout(Duration::from_secs(1));
    outcome
}

struct Agent {
    source: Source,
    overrides: Overrides,
    configuration: Configuration,
    onboarding: watch::Sender<Onboarding>,
    trust: Arc<Trust>,
    services: Services,
    records: Arc<Records>,
    draining: Arc<AtomicBool>,
    signals: Signals,
    bot: AbortOnDropHandle<JoinError>,
    _follower: AbortOnDropHandle<()>,
    _debug: Option<Debug>,
    _sealed: [AbortOnDropHandle<()>; 2],
}

impl Agent {
    async fn start(
        from: Source,
        overrides: Overrides,
        configuration: Configuration,
        term: Term,
        (level, level_text): (LogLevel, String),
        data: &Handle,
    ) -> Result<(Self, Option<Writer>), AgentError> {
        let signals = Signals::catch().map_err(AgentError::Signals)?;
        let metrics =
            crate::metrics::install().map_err(|error| AgentError::Metrics(error.to_string()))?;
        let storage = BotStorage::open(&configuration.storage)?;
        let stored = storage.load()?;
        let (records, writer) = Records::open(configuration.connection_log.as_deref())?;
        let records = Arc::new(records);
        let health = Health::default();
        for service in &configuration.services {
            health.not_ready(&service.name, "starting");
        }
        let roll = Arc::new(Roll::default());
        let draining = Arc::new(AtomicBool::new(false));
        let (bot_state, bot_watch) = watch::channel(IdentityState::waiting(
            "the agent has not joined: connecting to the issuer",
        ));
        let source = IdentitySource::new();
        let link = IssuerLink::new(
            Addresses::new(configuration.issuer.addresses.clone()),
            source.clone(),
        );
        let sealed = match &configuration.sealed_store {
            Some(config) => {
                let bot = stored.as_ref().map(|stored| BotName::of(stored.svid.id()));
                Arc::new(Sealed::open(config, bot)?)
            }
            None => Arc::default(),
        };
        let bundles = stored.as_ref().map(|stored| stored.bundles.clone());
        let trust = Trust::new(bundles.unwrap_or_default());
        let attended = sealed.attend(source.subscribe(), trust.clone());
        if let Some(address) = configuration.diagnostics {
            let diagnostics = Diagnostics {
                health: health.clone(),
                bot: bot_watch.clone(),
                metrics: metrics.clone(),
                roll: roll.clone(),
                trust: trust.clone(),
                link: link.clone(),
                identity: source.clone(),
                draining: draining.clone(),
            };
            diagnostics
                .start(address)
                .await
                .map_err(|error| AgentError::Diagnostics { address, error })?;
        }
        // Of use, and no reason not to run.
        let debug = configuration.debug.as_ref().and_then(|socket| {
            let started = Debug::start(socket, level, level_text);
            started
                .inspect_err(|error| tracing::warn!(%error, "no debugging"))
                .ok()
        });
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(30)).await;
                metrics.run_upkeep();
            }
        });
        let keeping = Keeping {
            issuance: Issuance::over(link.clone()),
            trust: trust.clone(),
            bot: bot_watch,
            roll,
            sealed,
        };
        let mut services = Services {
            cache: Cache::new(keeping.clone()),
            closing: Vec::new(),
            keeping,
            health,
            sink: records.clone(),
            data: data.clone(),
            identities: Default::default(),
            running: Default::default(),
            storage: match &configuration.storage {
                Storage::Directory(path) => Some(path.clone()),
                Storage::Memory => None,
            },
            draining: Draining::default(),
            memory: Default::default(),
            wipe_on_exit: term.wipe_on_exit,
        };
        let failures = services
            .apply(&configuration.services, configuration.shutdown_grace)
            .await?;
        if let Some(error) = failures.into_iter().next() {
            return Err(error.into());
        }
        services.forget_others(&configuration.services);
        let (onboarding, onboarding_watch) = watch::channel(configuration.onboarding.clone());
        let bot = Bot {
            issuer: configuration.issuer.clone(),
            onboarding: onboarding_watch,
            storage: Arc::new(storage),
            source: source.clone(),
            link: link.clone(),
            trust: trust.clone(),
            state: bot_state,
        };
        let bot = AbortOnDropHandle::new(tokio::spawn(bot.run(stored)));
        let follower = AbortOnDropHandle::new(tokio::spawn(trust.clone().follow(link, source)));
        let agent = Self {
            source: from,
            overrides,
            configuration,
            onboarding,
            trust,
            services,
            records,
            draining,
            signals,
            bot,
            _follower: follower,
            _debug: debug,
            _sealed: attended,
        };
        Ok((agent, writer))
    }

    async fn serve(mut self) -> Result<ExitCode, AgentError> {
        systemd::ready();
        let _watchdog = systemd::watchdog();
        loop {
            let signals = &mut self.signals;
            tokio::select! {
                ended = &mut self.bot => return Err(match ended {
                    Ok(refused) => AgentError::Join(refused),
                    Err(error) => AgentError::Bot(error.to_string()),
                }),
                Some(()) = signals.reload.recv() => {
                    systemd::reloading();
                    if self.reload().await.is_break() {
                        return Ok(self.end().await);
                    }
                    systemd::ready();
                }
                Some(()) = signals.renew.recv() => {
                    tracing::info!("SIGUSR1: renewing every identity");
                    self.trust.order_now();
                }
                _ = signals.terminate.recv() => return Ok(self.end().await),
                _ = signals.interrupt.recv() => return Ok(self.end().await),
            }
        }
    }

    /// Waits until every output has been written once, and ends.
    async fn once(mut self, limit: Duration) -> Result<ExitCode, AgentError> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut failed = false;
        for (name, mut progress) in self.services.progress() {
            let done = progress.wait_for(|progress| !matches!(progress, Progress::Waiting(_)));
            let signals = &mut self.signals;
            let outcome = tokio::select! {
                done = tokio::time::timeout_at(deadline, done) => match done {
                    Ok(Ok(progress)) => progress.clone(),
                    Ok(Err(_)) => Progress::Failed("its task has ended".to_owned()),
                    Err(_) => Progress::Waiting(String::new()),
                },
                ended = &mut self.bot => return Err(match ended {
                    Ok(refused) => AgentError::Join(refused),
                    Err(error) => AgentError::Bot(error.to_string()),
                }),
                () = signals.end() => return Ok(self.end().await),
            };
            let why = match outcome {
                Progress::Written => continue,
                Progress::Failed(why) => why,
                Progress::Waiting(_) => match progress.borrow().clone() {
                    Progress::Waiting(why) => format!("not done within {limit:?}: {why}"),
                    Progress::Failed(why) => why,
                    Progress::Written => continue,
                },
            };
            eprintln!("tbot-proxy: service {name}: {why}");
            failed = true;
        }
        let code = self.end().await;
        Ok(if failed { ExitCode::FAILURE } else { code })
    }

    /// `SIGHUP`. A file with mistakes changes nothing. `Break`: an order to end has come meanwhile.
    async fn reload(&mut self) -> ControlFlow<()> {
        self.records.reopen();
        let file = self.source.to_string();
        let reloaded = match Configuration::read(&self.source, &self.overrides) {
            Ok(new) => self.put_in_force(new).await?,
            Err(ConfigurationError::Mistakes(mistakes)) => {
                for mistake in mistakes.iter() {
                    tracing::error!("{mistake}");
                }
                Err("the file has mistakes".to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        let complete = matches!(&reloaded, Ok(failures) if failures.is_empty());
        metrics::counter!(RELOADS, "result" => result(complete)).increment(1);
        match reloaded {
            Ok(failures) => {
                for error in &failures {
                    tracing::error!(%error, "service not started: reload to try again");
                }
                if complete {
                    tracing::info!(file, "configuration reloaded");
                } else {
                    tracing::error!(
                        file,
                        not_started = failures.len(),
                        "configuration reloaded in part: the other services are as it says"
                    );
                }
            }
            Err(error) => {
                tracing::error!(
                    file,
                    error,
                    "configuration not reloaded: the old one goes on"
                );
            }
        }
        ControlFlow::Continue(())
    }

    /// The services that were not started, and why; or why nothing has changed.
    async fn put_in_force(
        &mut self,
        new: Configuration,
    ) -> ControlFlow<(), Result<Vec<StartError>, String>> {
        let old = &self.configuration;
        // By default these are in the storage: one change is told once.
        let elsewhere = old.storage != new.storage;
        let fixed = [
            ("issuer", old.issuer != new.issuer),
            ("storage", old.storage != new.storage),
            (
                "sealed_store",
                old.sealed_store != new.sealed_store && !elsewhere,
            ),
            ("diagnostics", old.diagnostics != new.diagnostics),
            ("debug", old.debug != new.debug && !elsewhere),
            ("connection_log", old.connection_log != new.connection_log),
        ];
        for (key, changed) in fixed {
            if changed {
                tracing::warn!(key, "a change that takes effect at the next start");
            }
        }
        // What is in force: what could not change is as it was.
        let new = Configuration {
            issuer: old.issuer.clone(),
            storage: old.storage.clone(),
            sealed_store: old.sealed_store.clone(),
            diagnostics: old.diagnostics,
            debug: old.debug.clone(),
            connection_log: old.connection_log.clone(),
            ..new
        };
        let applied = tokio::select! {
            applied = self.services.apply(&new.services, new.shutdown_grace) => applied,
            () = self.signals.end() => {
                self.configuration = new;
                return ControlFlow::Break(());
            }
        };
        ControlFlow::Continue(match applied {
            Ok(failures) => {
                self.services.forget_others(&new.services);
                self.onboarding.send_replace(new.onboarding.clone());
                self.configuration = new;
                Ok(failures)
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// Ends: new connections are refused, live ones have the grace to end.
    async fn end(mut self) -> ExitCode {
        systemd::stopping();
        let grace = self.configuration.shutdown_grace;
        tracing::info!(
            grace_seconds = grace.as_secs_f64(),
            "ending: a second signal ends at once"
        );
        self.draining.store(true, Ordering::Relaxed);
        let code = tokio::select! {
            () = async {
                self.services.drain(grace).await;
                self.services.keeping.sealed.finish().await;
            } => ExitCode::SUCCESS,
            () = self.signals.end() => {
                tracing::warn!("ending at once");
                ExitCode::FAILURE
            }
        };
        tracing::info!("ended");
        code
    }
}

/// Only outputs are done at some time.
fn refuse_long_running(configuration: &Configuration) -> Result<(), AgentError> {
    let services = configuration.services.iter();
    let names: Vec<_> = services
        .filter(|service| !matches!(service.kind, ServiceKind::Output(_)))
        .map(|service| service.name.as_str())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(AgentError::LongRunning {
        services: names.join(", "),
    })
}

struct Signals {
    reload: Signal,
    renew: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            renew: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for an order to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn runtime(name: &'static str, workers: Option<usize>) -> Result<Runtime, AgentError> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_name(name);
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    builder.build().map_err(AgentError::Runtime)
}

/// Why the agent does not run. Each message is one line, but for the mistakes of
/// the configuration, which are one line each.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The storage cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The sealed store cannot be used.
    #[error("sealed_store: {0}")]
    Sealed(#[from] StoreError),
    /// The connection log cannot be written.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The issuer refuses, or is not the one that the pin names.
    #[error(transparent)]
    Join(JoinError),
    /// `--oneshot` with what is never done.
    #[error(
        "--oneshot: only outputs can be done once, and these services run for ever: {services}; leave them out of the file, or start without --oneshot"
    )]
    LongRunning {
        /// Their names.
        services: String,
    },
    /// A service does not start.
    #[error(transparent)]
    Service(#[from] StartError),
    /// Diagnostics cannot listen.
    #[error("diagnostics: cannot listen on {address}: {}", in_use(error))]
    Diagnostics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The metrics recorder cannot be installed.
    #[error("metrics: {0}")]
    Metrics(String),
    /// The kernel gives no threads.
    #[error(
        "cannot start threads: {0}; raise the limit of threads (ulimit -u, pids.max, TasksMax)"
    )]
    Runtime(io::Error),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(io::Error),
    /// A defect of ours.
    #[error("the task that keeps the bot identity has ended: {0}")]
    Bot(String),
}

fn in_use(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "it is in use by another process; stop that one, or choose another address".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; choose a port from 1024 on, or give tbot-proxy CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}; choose an address of this machine")
        }
        _ => error.to_string(),
    }
}
