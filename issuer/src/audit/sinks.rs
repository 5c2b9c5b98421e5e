//! Where records go beside the store: a file, standard output, an OpenTelemetry
//! collector.
//!
//! The store is the truth; a sink is a copy of it, with the signed checkpoints among
//! the records, so that it can be verified by itself. Each sink follows the store from
//! a cursor of its own: records arrive in order and at least once, over outages and
//! restarts of either side. No sink is ever waited for by a decision. Of one that falls
//! behind, or hangs, it is said: a gauge, the log, and a warning at `/readyz`.
//!
//! Issuers that share a database share the cursors: while it runs each delivers every
//! record, and one that starts goes on where any of them was.

mod blocking;
mod file;
#[cfg(feature = "otlp")]
mod otlp;
mod page;
mod runner;
mod settings;
mod stdout;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use identity::TrustDomain;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::settings::{FileSettings, OtlpSettings, SinkSettings, check_endpoint, parse_size};
use self::{
    blocking::Blocking,
    file::FileSink,
    page::Pages,
    runner::{Runner, Teller},
    stdout::StdoutSink,
};
use crate::{
    audit::{best_effort::BestEffort, chain::Hash, lines::NotDurable},
    store::Store,
};

/// How long the sinks may take, when the issuer stops, to deliver what is left.
const FAREWELL: Duration = Duration::from_secs(3);

/// Decisions that are in no trail and wait for one sink, at most: more are in the log only.
const NOT_DURABLE_MAX: usize = 10_000;

/// What ails the sinks, for probes; empty: nothing.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<String, String>>);

impl Health {
    /// One line a sink that is in trouble.
    pub fn warnings(&self) -> Vec<String> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.values().cloned().collect()
    }

    fn set(&self, sink: &str, trouble: Option<String>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => troubles.insert(sink.to_owned(), trouble),
            None => troubles.remove(sink),
        };
    }
}

/// The sinks at work.
#[derive(Debug)]
pub struct Sinks {
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    not_durable: Vec<mpsc::Sender<Arc<NotDurable>>>,
}

impl Sinks {
    /// Starts those that are wanted. What a sink cannot do now it tries again later.
    pub fn start(settings: &SinkSettings, store: &Store, trust_domain: &TrustDomain) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut sinks = Self {
            health: Arc::default(),
            stop,
            tasks: Vec::new(),
            not_durable: Vec::new(),
        };
        if let Some(file) = &settings.file {
            let name = format!("file:{}", file.path.display());
            let sink = Sink::Blocking(Blocking::start(FileSink::new(file.clone())));
            sinks.run(name, "file", sink, store, &stopping);
        }
        if settings.stdout {
            let sink = Sink::Blocking(Blocking::start(StdoutSink::default()));
            sinks.run("stdout".to_owned(), "stdout", sink, store, &stopping);
        }
        #[cfg(not(feature = "otlp"))]
        let _ = trust_domain;
        #[cfg(feature = "otlp")]
        if let Some(otlp) = &settings.otlp {
            let name = format!("otlp:{}", otlp.endpoint);
            let sink = otlp::OtlpSink::new(otlp.clone(), trust_domain);
            let sink = Sink::Otlp(Box::new(sink));
            sinks.run(name, "otlp", sink, store, &stopping);
        }
        sinks
    }

    /// What ails them.
    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Where to tell of what the store could not record.
    pub fn best_effort(&self) -> BestEffort {
        BestEffort::new(self.not_durable.clone())
    }

    /// Lets them deliver what is committed, for a while.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        let tasks = futures_util::future::join_all(self.tasks);
        if tokio::time::timeout(FAREWELL, tasks).await.is_err() {
            tracing::warn!("an audit sink is behind; it goes on at the next start");
        }
    }

    fn run(
        &mut self,
        name: String,
        kind: &'static str,
        sink: Sink,
        store: &Store,
        stopping: &watch::Receiver<bool>,
    ) {
        let (tell, not_durable) = mpsc::channel(NOT_DURABLE_MAX);
        self.not_durable.push(tell);
        let runner = Runner {
            teller: Teller {
                name,
                kind,
                store: store.clone(),
                health: self.health.clone(),
            },
            not_durable,
            sink,
            pages: Pages::new(store.clone()),
            stopping: stopping.clone(),
        };
        self.tasks.push(tokio::spawn(runner.run()));
    }
}

/// A way out of the process.
enum Sink {
    /// A file, or standard output.
    Blocking(Blocking),
    /// A collector.
    #[cfg(feature = "otlp")]
    Otlp(Box<otlp::OtlpSink>),
}

impl Sink {
    /// Number of the newest record that it holds, if it can tell.
    async fn held(&mut self) -> Result<Held, String> {
        match self {
            Self::Blocking(sink) => sink.held().await,
            #[cfg(feature = "otlp")]
            Self::Otlp(_) => Ok(Held::Unknown),
        }
    }

    /// Delivers lines in order. After an error any number of them may have arrived.
    async fn deliver(&mut self, page: Arc<page::Page>) -> Result<(), String> {
        match self {
            Self::Blocking(sink) => sink.deliver(page).await,
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => sink.deliver(&page).await,
        }
    }

    /// Makes what was delivered durable, as far as it hangs on us.
    async fn sync(&mut self) -> Result<(), String> {
        match self {
            Self::Blocking(sink) => sink.sync().await,
            #[cfg(feature = "otlp")]
            Self::Otlp(_) => Ok(()),
        }
    }
}

/// What a sink knows of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nothing can be said: the cursor counts.
    Unknown,
    /// This record is its newest one: its number and link.
    Exactly(u64, Hash),
    /// It has at least this one.
    AtLeast(u64, Hash),
}
