//! What a restarted agent serves before the issuer has answered.
//!
//! Every set of SVIDs that is kept is written to a [`SealedStore`] too, if there is one.
//! After a restart a set is in force again, under the same conditions as before: it has not
//! expired, it was granted to this bot, the workload that asks agrees in all that it was
//! granted for, and policy is the same as then, as far as the issuer can be asked. What is
//! known not to count is removed at once, asked for or not: it must not come back when the
//! issuer is away at the next start.
//!
//! Writing is done by a thread of its own: a slow disk keeps nobody waiting, a full one is
//! told of and tried again, and each set is in the queue once, however often it changes.

mod set;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use identity::SpiffeId;
use sealed_store::{KeyError, SealedStore, StoreError};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

pub(crate) use self::set::{Name, Restored, Whom};

use crate::{
    cache::Place,
    configuration::SealedStoreConfig,
    metrics::{SEALED_WRITES, result},
    trust::{RenewOrder, Trust},
};

/// How long the last writes may take.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// Pause before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// See the module. `Default`: there is no store.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    writer: Option<Writer>,
    /// The bot that sets are granted to.
    bot: Mutex<Option<BotName>>,
    /// Sets of the process before this one that nobody has asked for yet.
    found: Mutex<Vec<(Name, Restored)>>,
}

/// Trust domain and name of a bot, over all of its instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BotName(String);

impl BotName {
    /// Of a bot identity: `spiffe://TRUST DOMAIN/bot/NAME/INSTANCE`.
    pub(crate) fn of(id: &SpiffeId) -> Self {
        let name = id.segments().nth(1).unwrap_or_default();
        Self(format!("{}/{name}", id.trust_domain_name()))
    }
}

impl Sealed {
    /// Opens the store. What was granted to another bot than `bot`, the one whose identity is
    /// in the storage, is removed; without one nothing comes back.
    pub(crate) fn open(
        config: &SealedStoreConfig,
        bot: Option<BotName>,
    ) -> Result<Self, StoreError> {
        let store = match SealedStore::open(&config.path, &config.key) {
            // Nothing of it is lost.
            Err(StoreError::Key(error @ KeyError::Missing { .. })) => {
                tracing::error!(%error, "there is no sealed store until the next start");
                return Ok(Self::default());
            }
            store => store?,
        };
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
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        let now = SystemTime::now();
        for (entry, bytes) in contents.entries {
            match set::read(&entry, &bytes, now) {
                Some((of, name, set)) if bot.as_ref() == Some(&of) => found.push((name, set)),
                _ => gone.push(entry),
            }
        }
        tracing::info!(%path, sets = found.len(), "the sealed store is open");
        let sealed = Self {
            writer: Some(Writer::start(store)),
            bot: Mutex::new(bot),
            found: Mutex::new(found),
        };
        for entry in gone {
            sealed.change(&entry, None);
        }
        Ok(sealed)
    }

    /// Whether there is a store.
    pub(crate) fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// The sets that were kept for `whom` in this place; each is given once.
    pub(crate) fn take(&self, whom: Whom, place: &Place) -> Vec<Restored> {
        let mut found = lock(&self.found);
        let taken = found.extract_if(.., |(name, _)| name.is_at(whom, place));
        taken.map(|(_, set)| set).collect()
    }

    /// Removes those that nobody has asked for and that do not count any more.
    pub(crate) fn retain(&self, mut counts: impl FnMut(&Name, &mut Restored) -> bool) {
        let mut found = lock(&self.found);
        let gone: Vec<_> = found
            .extract_if(.., |(name, set)| !counts(name, set))
            .collect();
        drop(found);
        for (name, _) in gone {
            self.change(&name.text(), None);
        }
    }

    /// Notes what a set is now; `None`: nothing of it is to come back.
    pub(crate) fn put(&self, name: &Name, set: Option<&Restored>) {
        if !self.is_open() {
            return;
        }
        let bytes = match (set, lock(&self.bot).as_ref()) {
            (Some(set), Some(bot)) => set::write(bot, name, set),
            _ => None,
        };
        self.change(&name.text(), bytes);
    }

    /// Notes who the bot is; whether it is another than it was: then nothing of what was
    /// granted before counts.
    fn set_bot(&self, bot: &BotName) -> bool {
        let before = lock(&self.bot).replace(bot.clone());
        let is_another = before.is_some_and(|before| before != *bot);
        if is_another {
            self.retain(|_, _| false);
        }
        is_another
    }

    /// Removes what does not count any more, for as long as there is something that nobody
    /// has asked for.
    pub(crate) async fn follow(self: Arc<Self>, mut orders: watch::Receiver<Option<RenewOrder>>) {
        while !lock(&self.found).is_empty() {
            let order = *orders.borrow_and_update();
            let now = SystemTime::now();
            self.retain(|_, set| {
                let mut svids = set.svids.iter();
                svids.any(|svid| svid.not_after > now)
                    && !order.is_some_and(|order| set.is_of_other_policy(order))
            });
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(Duration::from_secs(60)) => {}
            }
        }
    }

    fn change(&self, name: &str, bytes: Option<Zeroizing<Vec<u8>>>) {
        let Some(writer) = &self.writer else { return };
        let mut queue = writer.queue.lock();
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

    /// Follows the bot identity, and the issuer's orders, until it is dropped.
    pub(crate) fn attend(
        self: &Arc<Self>,
        mut identity: watch::Receiver<Arc<identity::Identity>>,
        trust: Arc<Trust>,
    ) -> [AbortOnDropHandle<()>; 2] {
        let (sealed, orders) = (self.clone(), trust.order());
        let bot = async move {
            loop {
                let svid = identity.borrow_and_update().svid.clone();
                if let Some(svid) = svid
                    && sealed.set_bot(&BotName::of(svid.id()))
                {
                    tracing::warn!(id = %svid.id(), "the bot is another one: everything is asked for anew");
                    trust.order_now();
                }
                if identity.changed().await.is_err() {
                    return;
                }
            }
        };
        let tasks = [tokio::spawn(bot), tokio::spawn(self.clone().follow(orders))];
        tasks.map(AbortOnDropHandle::new)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    is_closing: bool,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
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
                tracing::error!(%error, "no thread for the sealed store: nothing is written to it");
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
        let mut failed = Vec::new();
        for (name, bytes) in changes {
            let done = match &bytes {
                Some(bytes) => store.put(&name, bytes),
                None => store.remove(&name),
            };
            metrics::counter!(SEALED_WRITES, "result" => result(done.is_ok())).increment(1);
            if let Err(error) = done {
                // Once, and not for each of a thousand sets.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(
                        %error,
                        "the sealed store cannot be written, which is tried again: a restart without the issuer would lose newer SVIDs, and find some that were taken away"
                    );
                }
                failed.push((name, bytes));
            }
        }
        if failed.is_empty() {
            if std::mem::replace(&mut is_failing, false) {
                tracing::info!("the sealed store is written again");
            }
            continue;
        }
        let mut state = queue.lock();
        if state.is_closing {
            return;
        }
        for (name, bytes) in failed {
            state.changes.entry(name).or_insert(bytes);
        }
        let pause = queue
            .wake
            .wait_timeout_while(state, AGAIN, |state| !state.is_closing);
        drop(pause.unwrap_or_else(PoisonError::into_inner));
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
