//! Moves records from the store to one sink.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    Health, Held, Sink,
    page::{Page, Pages},
};
use crate::{
    audit::lines::{Line, NotDurable},
    store::{
        Store, StoreError,
        audit::{cursors, search, search::Filter},
    },
};

/// Waits between attempts: from this,
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// doubled each time, to this.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How often the cursor is kept while records flow: after a crash, as much is
/// delivered again.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How many decisions that are in no trail are delivered at once.
const TOLD_AT_ONCE: usize = 256;
/// How often the log tells of a sink that is in trouble.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long a sink (or the store) may be silent before that is told. It is waited for
/// all the same: what hangs cannot be called off.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) struct Runner {
    pub(super) teller: Teller,
    pub(super) sink: Sink,
    pub(super) pages: Pages,
    /// What no trail will ever have.
    pub(super) not_durable: mpsc::Receiver<Arc<NotDurable>>,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Says how a sink is: to the log, to probes, to whoever measures.
pub(super) struct Teller {
    /// Which sink: its kind and where it leads. The store keeps its cursor by this.
    pub(super) name: String,
    /// What metrics call it.
    pub(super) kind: &'static str,
    pub(super) store: Store,
    pub(super) health: Arc<Health>,
}

/// How far a sink is.
struct Progress {
    /// Number of the newest record that was delivered.
    position: u64,
    /// The same, as kept in the store.
    kept: u64,
    kept_at: Instant,
    /// Read, and not delivered yet.
    pending: Option<Arc<Page>>,
    /// The same, of what is not in the store.
    not_durable: Vec<Arc<NotDurable>>,
    troubled_since: Option<Instant>,
    told_at: Option<Instant>,
    wait: Duration,
}

impl Progress {
    /// The store lost what came after this (a replica took over that had not got it): its
    /// next records have those numbers again.
    fn go_back(&mut self, newest: u64) {
        self.position = newest;
        self.kept = self.kept.min(newest);
        self.pending = None;
    }
}

impl Runner {
    pub(super) async fn run(mut self) {
        let mut changes = self.teller.store.changes();
        let Some(mut progress) = self.begin().await else {
            return;
        };
        loop {
            let newest = changes.borrow_and_update().audit_sequence;
            if newest < progress.position {
                let (sink, has) = (&self.teller.name, progress.position);
                tracing::error!(
                    sink,
                    has,
                    newest,
                    "the store has lost records that an audit sink has"
                );
                progress.go_back(newest);
            }
            self.teller.measure(newest, progress.position);
            let step = match self.tell_not_durable(&mut progress).await {
                Ok(()) if progress.position < newest => self.step(&mut progress, newest).await,
                told => told,
            };
            let step = match step {
                Ok(()) => self.keep(&mut progress, newest).await,
                error => error,
            };
            match step {
                Ok(()) => self.teller.recovered(&mut progress),
                Err(why) => {
                    self.teller.failed(&mut progress, &why);
                    if self.pause(&mut progress).await {
                        return;
                    }
                    continue;
                }
            }
            if progress.position < newest {
                continue;
            }
            if *self.stopping.borrow() {
                progress.kept_at = Instant::now() - KEEP_EVERY;
                if let Err(why) = self.keep(&mut progress, newest).await {
                    tracing::warn!(sink = self.teller.name, why, "the cursor could not be kept");
                }
                return;
            }
            let keep_later = progress.kept < progress.position;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = self.stopping.wait_for(|stopping| *stopping) => {}
                Some(told) = self.not_durable.recv() => progress.not_durable.push(told),
                () = tokio::time::sleep(KEEP_EVERY), if keep_later => {}
            }
        }
    }

    /// Where to go on; none: the issuer stops before that is known.
    async fn begin(&mut self) -> Option<Progress> {
        let mut progress = Progress {
            position: 0,
            kept: 0,
            kept_at: Instant::now(),
            pending: None,
            not_durable: Vec::new(),
            troubled_since: None,
            told_at: None,
            wait: BACKOFF_MIN,
        };
        loop {
            match self.resume(&mut progress).await {
                Ok((kept, position)) => {
                    (progress.kept, progress.position) = (kept, position);
                    self.teller.recovered(&mut progress);
                    let sink = &self.teller.name;
                    tracing::info!(sink, after = position, "an audit sink begins");
                    return Some(progress);
                }
                Err(why) => {
                    self.teller.failed(&mut progress, &why);
                    if self.pause(&mut progress).await {
                        return None;
                    }
                }
            }
        }
    }

    async fn resume(&mut self, progress: &mut Progress) -> Result<(u64, u64), String> {
        let held = self.teller.watch(progress, self.sink.held()).await?;
        let find = self.teller.find(held);
        self.teller.watch(progress, find).await
    }

    /// Before the records of the store, which may be what is away.
    async fn tell_not_durable(&mut self, progress: &mut Progress) -> Result<(), String> {
        while progress.not_durable.len() < TOLD_AT_ONCE
            && let Ok(told) = self.not_durable.try_recv()
        {
            progress.not_durable.push(told);
        }
        if progress.not_durable.is_empty() {
            return Ok(());
        }
        let told = progress.not_durable.iter();
        let lines = told.map(|told| {
            let line = Line::NotDurable(NotDurable::clone(told));
            let text = line.to_json();
            (line, text)
        });
        let page = Page {
            lines: lines.collect(),
            last: progress.position,
        };
        let delivered = self.sink.deliver(Arc::new(page));
        self.teller.watch(progress, delivered).await?;
        progress.not_durable.clear();
        Ok(())
    }

    /// One page.
    async fn step(&mut self, progress: &mut Progress, newest: u64) -> Result<(), String> {
        let page = match &progress.pending {
            Some(page) => page.clone(),
            None => {
                let read = self.pages.after(progress.position);
                let read = async { read.await.map_err(|error| error.to_string()) };
                let page = self.teller.watch(progress, read).await?.ok_or_else(|| {
                    let from = progress.position + 1;
                    format!("the store has lost the records {from} to {newest}")
                })?;
                progress.pending.insert(Arc::new(page)).clone()
            }
        };
        let last = page.last;
        let delivered = self.sink.deliver(page);
        self.teller.watch(progress, delivered).await?;
        progress.pending = None;
        metrics::counter!("issuer_audit_sink_events_total", "sink" => self.teller.kind)
            .increment(last - progress.position);
        progress.position = last;
        self.teller.measure(newest, last);
        Ok(())
    }

    /// Keeps the cursor, when it is time.
    async fn keep(&mut self, progress: &mut Progress, newest: u64) -> Result<(), String> {
        let due = progress.kept_at.elapsed() >= KEEP_EVERY;
        if progress.kept >= progress.position || !due {
            return Ok(());
        }
        let synced = self.sink.sync();
        self.teller.watch(progress, synced).await?;
        let (sink, position) = (self.teller.name.clone(), progress.position);
        let written = self
            .teller
            .store
            .write::<_, StoreError, _>(move |tx| {
                let sink = sink.clone();
                Box::pin(async move { cursors::advance(tx, &sink, position).await })
            })
            .await;
        if let Err(error) = written {
            // The next time will do: what was delivered is delivered.
            let sink = &self.teller.name;
            tracing::debug!(%error, sink, newest, "the cursor was not kept");
        } else {
            progress.kept = position;
        }
        progress.kept_at = Instant::now();
        Ok(())
    }

    /// Waits before the next attempt; whether the issuer stops instead.
    async fn pause(&mut self, progress: &mut Progress) -> bool {
        let wait = progress.wait;
        progress.wait = (wait * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(wait) => false,
            _ = self.stopping.wait_for(|stopping| *stopping) => true,
        }
    }
}

impl Teller {
    /// Waits for an answer, and tells of one that does not come: nobody else could see
    /// that a sink hangs.
    async fn watch<T>(
        &self,
        progress: &mut Progress,
        answer: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let mut answer = pin!(answer);
        let begun = Instant::now();
        loop {
            match tokio::time::timeout(SILENCE, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let silent = begun.elapsed().as_secs();
                    self.troubled(progress, &format!("no answer for {silent} s"));
                }
            }
        }
    }

    /// Where a sink that holds this goes on: its cursor, and the newest record that it has.
    async fn find(&self, held: Held) -> Result<(u64, u64), String> {
        let failed = |error: StoreError| error.to_string();
        let mut connection = self.store.read().await.map_err(failed)?;
        let kept = cursors::read(&mut connection, &self.name);
        let kept = kept.await.map_err(failed)?;
        let (position, link) = match held {
            Held::Unknown => return Ok((kept, kept)),
            Held::Exactly(position, link) => (position, link),
            Held::AtLeast(position, link) => (position.max(kept), link),
        };
        let same = Filter {
            to: Some(position),
            ..Filter::default()
        };
        let found = search::read(&mut connection, &same, position, 1);
        let found = found.await.map_err(failed)?;
        // A cursor beyond the older file is of this store.
        let is_same = found.first().is_some_and(|found| found.hash == link);
        if is_same || (position == kept && !found.is_empty()) {
            return Ok((kept, position));
        }
        tracing::error!(
            sink = self.name,
            has = position,
            after = kept,
            "the audit sink holds records that the store does not: the store was restored from a \
             backup, or the sink is another issuer's; it goes on where the store says"
        );
        Ok((kept, kept))
    }

    fn measure(&self, newest: u64, position: u64) {
        let lag = newest.saturating_sub(position);
        metrics::gauge!("issuer_audit_sink_lag_events", "sink" => self.kind).set(lag as f64);
    }

    fn recovered(&self, progress: &mut Progress) {
        if let Some(since) = progress.troubled_since.take() {
            let after = since.elapsed();
            tracing::info!(sink = self.name, ?after, "an audit sink works again");
        }
        progress.told_at = None;
        progress.wait = BACKOFF_MIN;
        metrics::gauge!("issuer_audit_sink_up", "sink" => self.kind).set(1.0);
        self.health.set(&self.name, None);
    }

    /// An attempt came to nothing.
    fn failed(&self, progress: &mut Progress, why: &str) {
        metrics::counter!("issuer_audit_sink_failures_total", "sink" => self.kind).increment(1);
        self.troubled(progress, why);
    }

    fn troubled(&self, progress: &mut Progress, why: &str) {
        let newest = self.store.changes().borrow().audit_sequence;
        self.measure(newest, progress.position);
        let behind = newest.saturating_sub(progress.position);
        metrics::gauge!("issuer_audit_sink_up", "sink" => self.kind).set(0.0);
        progress.troubled_since.get_or_insert_with(Instant::now);
        let told = progress.told_at;
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            progress.told_at = Some(Instant::now());
            tracing::error!(
                sink = self.name,
                why,
                behind,
                "an audit sink is behind; nothing is lost, it is tried again"
            );
        }
        let warning = format!(
            "the audit sink {} is {behind} records behind: {why}",
            self.name
        );
        self.health.set(&self.name, Some(warning));
    }
}
