//! What a restarted agent serves before the issuer has answered.
//!
//! Every set of SVIDs that is kept is written to a [`SealedStore`] too, if there is one, and
//! so are the trust bundles. After a restart a set is in force again, under the same
//! conditions as before: it has not expired, the workload that asks agrees in all that it
//! was granted for, and policy is the same as then, as far as the issuer can be asked.
//!
//! Writing is done by a thread of its own: a slow disk keeps nobody waiting, a full one is
//! told of, and each set is in the queue once, however often it changes.

mod set;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use identity::TrustBundleSet;
use sealed_store::{SealedStore, StoreError};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(crate) use self::set::{Name, Restored, Whom};

use crate::{
    cache::Place,
    configuration::SealedStoreConfig,
    metrics::{SEALED_WRITES, result},
};

/// Name of the entry with the trust bundles.
const BUNDLES: &str = "bundles";
/// How long the last writes may take.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// See the module. `Default`: there is no store.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    writer: Option<Writer>,
    /// Sets of the process before this one that nobody has asked for yet.
    found: Mutex<Vec<(Name, Restored)>>,
}

impl Sealed {
    /// Opens the store, and the trust bundles that were in force last. What is of another
    /// trust domain than `own`, if that is known, is not restored.
    pub(crate) fn open(
        config: &SealedStoreConfig,
        own: Option<&str>,
    ) -> Result<(Self, Option<TrustBundleSet>), StoreError> {
        let store = SealedStore::open(&config.path, &config.key)?;
        let contents = store.contents()?;
        let path = config.path.display();
        if contents.of_another_key > 0 {
            tracing::warn!(
                %path,
                entries = contents.of_another_key,
                "SVIDs that were sealed under another key are lost (after a reboot the keyring has a new one)"
            );
        }
        for file in &contents.damaged {
            tracing::warn!(file = %file.display(), "a sealed SVID was damaged and is lost");
        }
        let (mut bundles, mut found) = (None, Vec::new());
        let now = SystemTime::now();
        for (name, bytes) in contents.entries {
            if name == BUNDLES {
                bundles = TrustBundleSet::from_map_json(&bytes).ok();
                continue;
            }
            match set::read(&name, &bytes, now) {
                Some(set) if own.is_none_or(|own| set.1.is_of(own)) => found.push(set),
                _ => store.remove(&name)?,
            }
        }
        tracing::info!(%path, sets = found.len(), "the sealed store is open");
        let sealed = Self {
            writer: Some(Writer::start(store)),
            found: Mutex::new(found),
        };
        Ok((sealed, bundles))
    }

    /// Whether there is a store.
    pub(crate) fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// The sets that were kept for `whom` in this place; each is given once.
    pub(crate) fn take(&self, whom: Whom, place: &Place) -> Vec<Restored> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = found.extract_if(.., |(name, _)| name.is_at(whom, place));
        taken.map(|(_, set)| set).collect()
    }

    /// Removes the sets of places that are no longer configured.
    pub(crate) fn retain(&self, is_configured: impl Fn(Whom, &Place) -> bool) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = found.extract_if(.., |(name, _)| !is_configured(name.whom(), name.place()));
        for (name, _) in gone {
            self.change(&name.text(), 0, None);
        }
    }

    /// Notes what a set is now; `owner` tells those who keep sets apart. A set of this name
    /// that somebody else has put there since is not removed.
    pub(crate) fn put(&self, name: &Name, owner: usize, set: Option<&Restored>) {
        if self.is_open() {
            let bytes = set.map(|set| set::write(name, set));
            self.change(&name.text(), owner, bytes);
        }
    }

    /// Writes every change of the trust bundles.
    pub(crate) async fn follow(self: Arc<Self>, mut bundles: watch::Receiver<Arc<TrustBundleSet>>) {
        if !self.is_open() {
            return;
        }
        loop {
            let json = bundles.borrow_and_update().to_map_json();
            self.change(BUNDLES, 0, Some(Zeroizing::new(json)));
            if bundles.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, name: &str, owner: usize, bytes: Option<Zeroizing<Vec<u8>>>) {
        let Some(writer) = &self.writer else { return };
        let mut queue = writer.queue.lock();
        match &bytes {
            Some(_) => _ = queue.owners.insert(name.to_owned(), owner),
            None if queue.owners.get(name).is_some_and(|other| *other != owner) => return,
            None => _ = queue.owners.remove(name),
        }
        queue.changes.insert(name.to_owned(), bytes);
        writer.queue.wake.notify_one();
    }

    /// Waits until all is written, within a few seconds.
    pub(crate) async fn finish(&self) {
        let Some(writer) = &self.writer else { return };
        let thread = {
            let mut queue = writer.queue.lock();
            queue.is_closing = true;
            writer.queue.wake.notify_one();
            queue.thread.take()
        };
        let ended = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join));
        if tokio::time::timeout(LAST_WRITES, ended).await.is_err() {
            tracing::warn!("the sealed store is slow: the last SVIDs are not in it");
        }
    }
}

struct Writer {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// By name, what is to be written; `None`: removed.
    changes: HashMap<String, Option<Zeroizing<Vec<u8>>>>,
    /// Who put it there last.
    owners: HashMap<String, usize>,
    is_closing: bool,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn start(store: SealedStore) -> Self {
        let queue = Arc::<Queue>::default();
        let thread = std::thread::Builder::new().name("sealed".to_owned());
        let thread = thread.spawn({
            let queue = queue.clone();
            move || write(&store, &queue)
        });
        match thread {
            Ok(thread) => queue.lock().thread = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for the sealed store: nothing is written to it")
            }
        }
        Self { queue }
    }
}

fn write(store: &SealedStore, queue: &Queue) {
    let mut is_failing = false;
    loop {
        let mut state = queue.lock();
        while state.changes.is_empty() && !state.is_closing {
            state = queue
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut state.changes);
        drop(state);
        for (name, bytes) in changes {
            let done = match bytes {
                Some(bytes) => store.put(&name, &bytes),
                None => store.remove(&name),
            };
            let failed = done.is_err();
            metrics::counter!(SEALED_WRITES, "result" => result(!failed)).increment(1);
            match done {
                Ok(()) if is_failing => tracing::info!("the sealed store is written again"),
                // Once, and not for each of a thousand sets.
                Err(error) if !is_failing => tracing::error!(
                    %error,
                    "the sealed store cannot be written: a restart without the issuer would lose newer SVIDs"
                ),
                _ => {}
            }
            is_failing = failed;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().is_closing = true;
        self.queue.wake.notify_one();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
