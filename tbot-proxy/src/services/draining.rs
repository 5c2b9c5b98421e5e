//! Proxies that have been stopped and whose connections have the grace to end.
//!
//! Until they have ended they keep what authorization needs: their identity and its
//! trust bundles go on being followed, and a policy that is put in force meanwhile
//! reaches them ([`Draining::proxies`]).

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use proxy::ProxyService;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::served::Served;

/// See the module.
pub(crate) struct Draining {
    tasks: JoinSet<()>,
    proxies: Vec<Weak<ProxyService>>,
    /// When all are cut, if that is sooner than each one's own grace.
    end: watch::Sender<Option<Instant>>,
}

impl Default for Draining {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            proxies: vec![],
            end: watch::Sender::new(None),
        }
    }
}

impl Draining {
    /// Begins to drain one.
    pub(super) fn begin(&mut self, proxy: ProxyService, served: Served, grace: Duration) {
        while self.tasks.try_join_next().is_some() {}
        self.proxies.retain(|proxy| proxy.strong_count() > 0);
        let proxy = Arc::new(proxy);
        self.proxies.push(Arc::downgrade(&proxy));
        let own_end = Instant::now() + grace;
        let mut end = self.end.subscribe();
        self.tasks.spawn(async move {
            let end = async move {
                loop {
                    let common = *end.borrow_and_update();
                    let end_at = common.map_or(own_end, |common| common.min(own_end));
                    tokio::select! {
                        () = sleep_until(end_at) => return,
                        Ok(()) = end.changed() => {}
                    }
                }
            };
            let cut = proxy.drain_until(end).await;
            if cut > 0 {
                tracing::warn!(
                    service = proxy.config().name,
                    connections = cut,
                    "cut at the end of the grace"
                );
            }
            // Its connections were told of changes of trust until here.
            drop(served);
        });
    }

    /// Those that have not ended yet.
    pub(super) fn proxies(&self) -> impl Iterator<Item = Arc<ProxyService>> {
        self.proxies.iter().filter_map(Weak::upgrade)
    }

    /// Returns when every one has ended: after `grace` at the latest, also those that
    /// were given a longer one when they began.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.end.send_replace(Some(Instant::now() + grace));
        while self.tasks.join_next().await.is_some() {}
    }
}
