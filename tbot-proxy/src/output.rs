//! `workload-identity-x509`: the SVID and the trust bundles as files, for
//! software that reads them (DESIGN section 5).
//!
//! | file | contents |
//! |---|---|
//! | `svid.pem` | leaf and intermediates |
//! | `svid_key.pem` | its key, PKCS#8 |
//! | `bundle.pem` | CA certificates of the own trust domain |
//! | `federated/<td>.pem` | those of each other trust domain |
//! | `bundle_map.json` | all trust bundles, by trust domain |
//!
//! They change together ([`FileSet`]). A failure makes this service not ready,
//! leaves the last set in place and is retried; other services go on.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::output::{FileSet, FileSetError, Links, SetFile};
use identity::{Identity, TrustBundleSet, X509Svid};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    metrics::{OUTPUT_WRITES, result},
    schedule::Backoff,
    served::Served,
    state::{Health, IdentityState},
};

/// An output that is kept up to date until it is stopped.
#[derive(Debug)]
pub(crate) struct OutputTask {
    stop: oneshot::Sender<()>,
    task: AbortOnDropHandle<()>,
}

impl OutputTask {
    /// `storage`: the directory of the bot identity, where no output may write.
    pub(crate) fn start(
        name: String,
        directory: PathBuf,
        storage: Option<PathBuf>,
        served: &Served,
        health: Health,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let output = Output {
            name,
            directory,
            storage,
            files: None,
            state: served.state(),
            changes: served.source().subscribe(),
            health,
        };
        Self {
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(output.run(stopped))),
        }
    }

    /// Orders it to stop, at once; to be waited for: it may be writing.
    pub(crate) fn stop(self) -> impl Future<Output = ()> + use<> {
        let Self { stop, task } = self;
        drop(stop);
        async move {
            _ = task.await;
        }
    }
}

struct Output {
    name: String,
    directory: PathBuf,
    storage: Option<PathBuf>,
    /// Locked for as long as this is there.
    files: Option<FileSet>,
    state: watch::Receiver<IdentityState>,
    changes: watch::Receiver<Arc<Identity>>,
    health: Health,
}

impl Output {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut backoff = Backoff::default();
        let mut written = None;
        let mut failure: Option<String> = None;
        loop {
            let identity = self.changes.borrow_and_update().clone();
            let mut retry = None;
            if let Some(svid) = &identity.svid
                && written != Some(identity.generation)
            {
                match self.write(svid.clone(), identity.bundles.clone()).await {
                    Ok(()) => {
                        written = Some(identity.generation);
                        failure = None;
                        backoff.reset();
                    }
                    Err(error) => {
                        tracing::error!(service = self.name, error, "output not written");
                        failure = Some(error);
                        retry = Some(backoff.next());
                    }
                }
            }
            self.tell(written.is_some(), failure.clone());
            if written == Some(identity.generation) {
                let expiry = identity.svid.as_ref().map(|svid| svid.not_after());
                self.health.expires(&self.name, expiry);
            }
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                () = sleep(retry) => {}
                Ok(()) = self.changes.changed() => {}
                Ok(()) = self.state.changed() => {}
            }
        }
    }

    fn tell(&mut self, written: bool, failure: Option<String>) {
        let IdentityState { held, reason } = self.state.borrow_and_update().clone();
        match failure {
            Some(failure) => self.health.not_ready(&self.name, failure),
            None if held && written => self.health.ready(&self.name, reason),
            None => {
                let reason = reason.unwrap_or_else(|| "not written yet".to_owned());
                self.health.not_ready(&self.name, reason);
            }
        }
    }

    async fn write(
        &mut self,
        svid: Arc<X509Svid>,
        bundles: Arc<TrustBundleSet>,
    ) -> Result<(), String> {
        let (directory, storage) = (self.directory.clone(), self.storage.clone());
        let files = self.files.take();
        let written = tokio::task::spawn_blocking(move || {
            let files = match files.filter(FileSet::is_in_place) {
                Some(files) => files,
                None => open(&directory, storage.as_deref())?,
            };
            write_x509(&files, &svid, &bundles).map_err(|error| error.to_string())?;
            Ok(files)
        })
        .await;
        let written = match written {
            Ok(Ok(files)) => {
                self.files = Some(files);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        };
        metrics::counter!(
            OUTPUT_WRITES,
            "service" => self.name.clone(),
            "result" => result(written.is_ok()),
        )
        .increment(1);
        written
    }
}

fn open(directory: &Path, storage: Option<&Path>) -> Result<FileSet, String> {
    if storage.is_some_and(|storage| is_same(directory, storage)) {
        return Err(format!(
            "cannot write to {}: it is the storage of the bot identity; give the output a directory of its own",
            directory.display()
        ));
    }
    FileSet::open(directory, Links::ByName).map_err(|error| error.to_string())
}

/// Whether two paths, however they are spelled, lead to one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    place(one).is_some_and(|one| Some(one) == place(other))
}

/// Writes the files of an SVID and its trust bundles as one set.
pub fn write_x509(
    files: &FileSet,
    svid: &X509Svid,
    bundles: &TrustBundleSet,
) -> Result<(), FileSetError> {
    let (chain, key) = (svid.chain_pem(), svid.key_pem());
    let map = bundles.to_map_json();
    let own = svid.id().trust_domain();
    let mut pems = vec![];
    for bundle in bundles.iter() {
        let name = if *bundle.trust_domain() == own {
            "bundle.pem".to_owned()
        } else {
            format!("federated/{}.pem", bundle.trust_domain())
        };
        pems.push((name, bundle.to_pem()));
    }
    let mut set = vec![
        SetFile {
            name: "svid.pem",
            contents: chain.as_bytes(),
        },
        SetFile {
            name: "svid_key.pem",
            contents: key.as_bytes(),
        },
        SetFile {
            name: "bundle_map.json",
            contents: &map,
        },
    ];
    set.extend(pems.iter().map(|(name, pem)| SetFile {
        name,
        contents: pem.as_bytes(),
    }));
    files.replace(&set)
}

/// Sleeps, or for ever if there is nothing to wait for.
async fn sleep(delay: Option<std::time::Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
