//! The identity as one service sees it.
//!
//! A service has an [`IdentitySource`] of its own, which follows a [`KeptIdentity`].
//! Which one it follows can change (another `credential_ttl`) while the service
//! runs: its listener and its connections know nothing of it. For as long as this
//! lives, through a drain too, it is told of every change of trust.

use std::sync::Arc;

use identity::IdentitySource;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    state::{Health, IdentityState, publish},
    svid::KeptIdentity,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Served {
    source: Arc<IdentitySource>,
    state: watch::Receiver<IdentityState>,
    kept: watch::Sender<Arc<KeptIdentity>>,
    _feed: AbortOnDropHandle<()>,
}

impl Served {
    /// Shows what `kept` holds, from now on.
    pub(crate) fn by(kept: Arc<KeptIdentity>) -> Self {
        let source = IdentitySource::new();
        let (told, state) = watch::channel(kept.state.borrow().clone());
        copy(&kept, &source, &told);
        let (kept, followed) = watch::channel(kept);
        let feed = tokio::spawn(feed(followed, source.clone(), told));
        Self {
            source,
            state,
            kept,
            _feed: AbortOnDropHandle::new(feed),
        }
    }

    /// Follows another one instead.
    pub(crate) fn follow(&self, kept: Arc<KeptIdentity>) {
        self.kept.send_replace(kept);
    }

    /// SVID and trust bundles of this service.
    pub(crate) fn source(&self) -> &Arc<IdentitySource> {
        &self.source
    }

    /// Whether there is an SVID, and what is wrong if anything is.
    pub(crate) fn state(&self) -> watch::Receiver<IdentityState> {
        self.state.clone()
    }

    /// Tells of a service what is so of its identity: its listener is there for as long as
    /// it runs.
    pub(crate) fn tell(&self, service: String, health: Health) -> AbortOnDropHandle<()> {
        let mut state = self.state();
        let mut changes = self.source().subscribe();
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let IdentityState { held, reason } = state.borrow_and_update().clone();
                let expiry = changes
                    .borrow_and_update()
                    .svid
                    .as_ref()
                    .map(|svid| svid.not_after());
                if held {
                    health.ready(&service, reason);
                } else {
                    health.not_ready(&service, reason.unwrap_or_else(|| "no SVID yet".to_owned()));
                }
                health.expires(&service, expiry);
                tokio::select! {
                    Ok(()) = state.changed() => {}
                    Ok(()) = changes.changed() => {}
                    else => return,
                }
            }
        }))
    }
}

async fn feed(
    mut followed: watch::Receiver<Arc<KeptIdentity>>,
    source: Arc<IdentitySource>,
    told: watch::Sender<IdentityState>,
) {
    loop {
        let kept = followed.borrow_and_update().clone();
        let mut changes = kept.source.subscribe();
        let mut state = kept.state.clone();
        loop {
            changes.mark_unchanged();
            state.mark_unchanged();
            copy(&kept, &source, &told);
            tokio::select! {
                changed = followed.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Ok(()) = changes.changed() => {}
                Ok(()) = state.changed() => {}
            }
        }
    }
}

fn copy(kept: &KeptIdentity, source: &IdentitySource, told: &watch::Sender<IdentityState>) {
    let now = kept.source.current();
    let bundles = now.bundles.as_ref().clone();
    match &now.svid {
        Some(svid) => source.set(svid.clone(), bundles),
        None => {
            source.clear_svid();
            source.set_bundles(bundles);
        }
    }
    publish(told, kept.state.borrow().clone());
}
