//! Outputs: documents where software that knows nothing of the Workload API reads them.
//!
//! What is written is made in `documents`, where it goes is a
//! [`Destination`](::output::Destination) of the crate `output`. A failure makes
//! this service not ready, leaves the last set in place and is retried; other services go
//! on. What has expired stays, unless it is to be removed: software that still runs may
//! rather fail at a peer than for want of a file. What an earlier process wrote is no other
//! matter (`left`).

use std::{path::PathBuf, sync::Arc, time::Duration};

use ::output::{
    Artifacts, Destination, DestinationError, Written,
    artifact::FileNames,
    destination::{CredentialsFile, Directory, Memory, MemoryOutputs},
    hook::Hook,
};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    configuration::{self, DestinationConfig, Document},
    metrics::{OUTPUT_HOOKS, OUTPUT_WRITES, result},
    schedule::{Backoff, sleep},
    state::{Health, IdentityState},
};

mod aws;
mod documents;
mod left;

pub(crate) use documents::Origin;
use documents::{Made, Maker};

/// How often a place that others can change is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// An output that is kept up to date until it is stopped.
#[derive(Debug)]
pub(crate) struct OutputTask {
    stop: oneshot::Sender<AtEnd>,
    progress: watch::Receiver<Progress>,
    task: AbortOnDropHandle<()>,
}

/// What is done with what was written when an output stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtEnd {
    Keep,
    Remove,
}

/// What has come of the first write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There was nothing to write yet; why, as far as it is known.
    Waiting(String),
    /// It is in force.
    Written,
    /// It could not be written.
    Failed(String),
}

/// What an output needs of the agent.
pub(crate) struct OutputPlace {
    /// The directory of the bot identity, where no output may write.
    pub(crate) storage: Option<PathBuf>,
    pub(crate) memory: MemoryOutputs,
    pub(crate) health: Health,
}

impl OutputTask {
    pub(crate) fn start(
        name: String,
        settings: &configuration::Output,
        origin: Origin<'_>,
        place: OutputPlace,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (progress, receiver) = watch::channel(Progress::Waiting("starting".to_owned()));
        let output = Output {
            destination: destination(&name, settings, &place),
            maker: Maker::start(settings, origin),
            hooks: settings.hooks.clone(),
            remove_expired: settings.remove_expired,
            document: settings.document.clone(),
            names: settings.names.clone(),
            health: place.health,
            name,
            progress,
        };
        Self {
            stop,
            progress: receiver,
            task: AbortOnDropHandle::new(tokio::spawn(output.run(stopped))),
        }
    }

    /// Orders it to stop, at once; to be waited for: it may be writing.
    pub(crate) fn stop(self, at_end: AtEnd) -> impl Future<Output = ()> + use<> {
        let Self { stop, task, .. } = self;
        _ = stop.send(at_end);
        async move {
            _ = task.await;
        }
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}

fn destination(name: &str, settings: &configuration::Output, place: &OutputPlace) -> Destination {
    match (&settings.destination, &settings.document) {
        (DestinationConfig::Directory(directory), Document::Aws(aws)) => {
            Destination::CredentialsFile(CredentialsFile {
                directory: directory.clone(),
                forbidden: place.storage.clone(),
                name: aws.file.clone(),
                profile: aws.profile.clone(),
                overwrite: aws.overwrite,
            })
        }
        (DestinationConfig::Directory(directory), _) => {
            Destination::Directory(Directory::new(directory.clone(), place.storage.clone()))
        }
        (DestinationConfig::Memory, _) => {
            Destination::Memory(Memory::new(name, place.memory.clone()))
        }
        #[cfg(feature = "kubernetes")]
        (DestinationConfig::KubernetesSecret(secret), _) => {
            use ::output::destination::kubernetes::KubernetesSecret;
            let secret = KubernetesSecret::new(secret.as_ref().clone());
            Destination::KubernetesSecret(Box::new(secret))
        }
    }
}

struct Output {
    name: String,
    destination: Destination,
    maker: Maker,
    hooks: Vec<Hook>,
    remove_expired: bool,
    document: Document,
    names: FileNames,
    health: Health,
    progress: watch::Sender<Progress>,
}

/// What is known of the last write.
#[derive(Default)]
struct Last {
    /// Number of the set that is in force.
    written: Option<u64>,
    /// Why the last write, or removal, failed.
    failure: Option<String>,
    /// What is not as it should be, though the set is in force.
    warning: Option<String>,
    /// The hooks of the first set run: whoever waits for the output waits for them too.
    is_starting: bool,
}

impl Output {
    async fn run(mut self, mut stopped: oneshot::Receiver<AtEnd>) {
        let mut backoff = Backoff::default();
        let mut last = Last::default();
        let mut look = false;
        loop {
            let made = self.maker.made.borrow_and_update().clone();
            let mut retry = None;
            // A look that fails is to be had again, by the back-off.
            let mut is_owed = false;
            let mut hooks_are_due = false;
            if let Some(set) = &made.set
                && (last.written != Some(set.number) || look)
            {
                let is_new = last.written != Some(set.number);
                match self.write(set.artifacts.clone()).await {
                    Ok(written) => {
                        hooks_are_due = is_new && written == Written::InForce;
                        last = Last {
                            is_starting: last.written.is_none() && hooks_are_due,
                            written: Some(set.number),
                            failure: None,
                            warning: match written {
                                Written::InForce => None,
                                Written::NewerIsThere(who) => Some(who),
                            },
                        };
                        backoff.reset();
                    }
                    // What was written is in force still, as far as is known.
                    Err(error) if !is_new && error.is_away() => {
                        tracing::warn!(service = self.name, %error, "output not looked at");
                        last.warning = Some(error.to_string());
                    }
                    Err(error) => {
                        tracing::error!(service = self.name, %error, "output not written");
                        last.failure = Some(error.to_string());
                        retry = Some(backoff.next());
                        is_owed = !is_new;
                    }
                }
            } else if made.set.is_none() && last.written.is_some() && self.remove_expired {
                match self.destination.remove().await {
                    Ok(()) => {
                        tracing::warn!(service = self.name, "what has expired is removed");
                        last = Last::default();
                        backoff.reset();
                    }
                    Err(error) => {
                        tracing::error!(service = self.name, %error, "output not removed");
                        last.failure = Some(error.to_string());
                        retry = Some(backoff.next());
                    }
                }
            }
            let mut look_at_left = None;
            if last.written.is_none() && self.remove_expired {
                match self.remove_what_is_left().await {
                    Ok(again) => look_at_left = Some(again),
                    Err(error) => {
                        tracing::error!(service = self.name, %error, "output not removed");
                        last.failure = Some(error.to_string());
                        retry = retry.or_else(|| Some(backoff.next()));
                    }
                }
            }
            if hooks_are_due && !self.hooks.is_empty() {
                // They may take their time.
                self.tell(&made, &last);
                tokio::select! {
                    biased;
                    at_end = &mut stopped => return self.end(at_end.ok()).await,
                    warning = self.run_hooks() => last.warning = warning,
                }
            }
            last.is_starting = false;
            self.tell(&made, &last);
            let next_look = match (retry, self.destination.is_shared()) {
                (Some(retry), _) => Some(retry),
                (None, true) if last.written.is_some() => Some(LOOK),
                (None, _) => None,
            };
            let next_look = [next_look, look_at_left].into_iter().flatten().min();
            tokio::select! {
                biased;
                at_end = &mut stopped => return self.end(at_end.ok()).await,
                () = sleep(next_look) => look = retry.is_none() || is_owed,
                Ok(()) = self.maker.made.changed() => look = false,
            }
        }
    }

    async fn write(&mut self, artifacts: Arc<Artifacts>) -> Result<Written, DestinationError> {
        let written = self.destination.write(artifacts).await;
        metrics::counter!(
            OUTPUT_WRITES,
            "service" => self.name.clone(),
            "result" => result(written.is_ok()),
        )
        .increment(1);
        written
    }

    /// What failed of them.
    async fn run_hooks(&self) -> Option<String> {
        let mut failures = vec![];
        for hook in &self.hooks {
            let run = hook.run(&self.name).await;
            metrics::counter!(
                OUTPUT_HOOKS,
                "service" => self.name.clone(),
                "result" => result(run.is_ok()),
            )
            .increment(1);
            if let Err(error) = run {
                tracing::error!(
                    service = self.name,
                    %error,
                    // May be secret: for the log alone, which escapes it.
                    printed = error.printed(),
                    "hook failed; the set is in force"
                );
                failures.push(format!("hook: {error}"));
            }
        }
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    async fn end(&mut self, at_end: Option<AtEnd>) {
        if at_end != Some(AtEnd::Remove) {
            return;
        }
        match self.destination.remove().await {
            Ok(()) => tracing::info!(service = self.name, "what was written is removed"),
            Err(error) => tracing::error!(service = self.name, %error, "output not removed"),
        }
    }

    fn tell(&self, made: &Made, last: &Last) {
        let IdentityState { held, reason } = made.state.clone();
        let in_force = last.written.is_some();
        let progress = match &last.failure {
            Some(failure) => {
                self.health.not_ready(&self.name, failure);
                Progress::Failed(failure.clone())
            }
            None if last.is_starting => {
                let reason = "it is in force, and its hooks still run";
                self.health.not_ready(&self.name, reason);
                Progress::Waiting(reason.to_owned())
            }
            None if held && in_force => {
                let warning = last.warning.clone().or(reason);
                self.health.ready(&self.name, warning);
                Progress::Written
            }
            None => {
                let reason = reason.unwrap_or_else(|| "not written yet".to_owned());
                self.health.not_ready(&self.name, reason.clone());
                Progress::Waiting(reason)
            }
        };
        let set = made.set.as_ref();
        if let Some(set) = set.filter(|set| last.written == Some(set.number)) {
            self.health.expires(&self.name, set.expires);
        }
        self.progress.send_replace(progress);
    }
}
