//! The identity of a service of this agent: one SVID of a [`KeptSet`] in an
//! [`IdentitySource`], which every service that selected it shares.
//!
//! What the issuer refuses stays until it expires; then it is taken away, and its
//! services say that they are not ready.

use std::sync::Arc;

use identity::{IdentitySource, TrustBundleSet};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    configuration::Selector,
    kept::{self, Before, Keeping, KeptSet, Outcome, SetKind, SetNow},
    sealed::Whom,
    state::{IdentityState, publish},
};

/// An identity that is kept fresh until this is dropped.
#[derive(Debug)]
pub(crate) struct KeptIdentity {
    pub(crate) source: Arc<IdentitySource>,
    pub(crate) state: watch::Receiver<IdentityState>,
    set: KeptSet,
    _task: AbortOnDropHandle<()>,
}

impl KeptIdentity {
    /// Starts to keep what `selector` names. `meanwhile`, of the same selection, serves until
    /// there is one of its own.
    pub(crate) fn start(selector: Selector, keeping: Keeping, meanwhile: Option<&SetNow>) -> Self {
        let place = (selector, SetKind::X509);
        let sealed = || keeping.sealed.take(Whom::Service, &place).pop();
        let before = match meanwhile {
            Some(set) => Before::Meanwhile(set),
            None => sealed().map_or(Before::Nothing, Before::Sealed),
        };
        let set = KeptSet::start(place, Arc::new(kept::Service), keeping.clone(), before);
        let source = IdentitySource::new();
        let (state, receiver) = watch::channel(IdentityState::waiting("starting"));
        copy(&set.now(), &source, &state);
        let task = tokio::spawn(show(set.follow(), source.clone(), state));
        Self {
            source,
            state: receiver,
            set,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What is in force.
    pub(crate) fn held(&self) -> Arc<SetNow> {
        self.set.now()
    }
}

async fn show(
    mut set: watch::Receiver<Arc<SetNow>>,
    source: Arc<IdentitySource>,
    state: watch::Sender<IdentityState>,
) {
    loop {
        let now = set.borrow_and_update().clone();
        copy(&now, &source, &state);
        if now.outcome == Outcome::Ended || set.changed().await.is_err() {
            return;
        }
    }
}

/// A service shows one identity: it fails rather than choose among several.
fn copy(now: &SetNow, source: &IdentitySource, state: &watch::Sender<IdentityState>) {
    let bundles = TrustBundleSet::clone(&now.bundles);
    match now.svids.as_slice() {
        [one] => {
            if let Some(svid) = one.document.x509() {
                source.set(svid.clone(), bundles);
            }
            publish(state, now.state());
        }
        several => {
            source.clear_svid();
            source.set_bundles(bundles);
            let mut state_now = now.state();
            if !several.is_empty() {
                let names: Vec<_> = several
                    .iter()
                    .map(|svid| svid.workload_identity.as_str())
                    .collect();
                state_now = IdentityState::waiting(format!(
                    "the selector yields {} identities ({}), and a service has one: select it by `name`, or by labels that only one has",
                    names.len(),
                    names.join(", ")
                ));
            }
            publish(state, state_now);
        }
    }
}
