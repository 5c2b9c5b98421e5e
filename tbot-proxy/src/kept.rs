//! Sets of SVIDs that are kept fresh: one task a set.
//!
//! What was issued last stays in force until it expires, whatever happens to the
//! issuer meanwhile; then it is taken away, and whoever serves it is told. Every
//! issuance has new keys. A set renews when the issuer suggests, when it or an operator
//! orders, and when policy has changed; one renewal at a time.
//!
//! Who a set is for is the business of its [`Bearer`]: it says with which attributes to
//! ask, and whether a refusal takes away what is held.

mod asking;
mod contexts;
mod keeper;
mod roll;
mod sealing;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use futures_util::future::BoxFuture;
use identity::TrustBundleSet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use keeper::Keeper;

pub(crate) use asking::{KeptDocument, KeptSvid, SetKind, to_struct};
pub(crate) use contexts::Contexts;
pub(crate) use roll::{Listed, Roll};

use crate::{
    cache::Place,
    issuance::Issuance,
    reads::Reads,
    sealed::{Name, Restored, Sealed, Whom},
    state::IdentityState,
    trust::Trust,
};

/// For whom a set is kept.
pub(crate) trait Bearer: Send + Sync + 'static {
    /// The attributes to ask with, read anew; `None`: nobody is there now who would use
    /// the set.
    fn attested(&self) -> BoxFuture<'_, Option<Attested>>;

    /// Resolves when somebody is there again.
    fn returned(&self) -> BoxFuture<'_, ()>;

    /// Whether nobody is there at all. Else somebody is whose attributes cannot be had now.
    fn is_alone(&self) -> bool;

    /// Gives the set up, unless somebody has come meanwhile; whether it did.
    fn retires(&self) -> bool;

    /// Whether a refusal of the issuer takes away what is held. Otherwise that stays
    /// until it expires, so that a mistake in policy can be mended before it does harm.
    fn yields_to_refusal(&self) -> bool;

    /// Who it is, for the sealed store.
    fn whom(&self) -> Whom;

    /// Is told of what every answer depends on, before anybody else sees the answer.
    fn depends_on(&self, reads: &Reads, attested: &Attested);
}

/// What is known of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Attested {
    /// The tree below `workload`; `None`: nothing was attested.
    pub(crate) workload: Option<Arc<Value>>,
    /// When it was begun to be read.
    pub(crate) at: Instant,
}

/// A bearer of which nothing is attested: a service of this agent.
pub(crate) struct Service;

impl Bearer for Service {
    fn attested(&self) -> BoxFuture<'_, Option<Attested>> {
        let attested = Attested {
            workload: None,
            at: Instant::now(),
        };
        Box::pin(async { Some(attested) })
    }

    fn returned(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn is_alone(&self) -> bool {
        false
    }

    fn retires(&self) -> bool {
        false
    }

    fn yields_to_refusal(&self) -> bool {
        false
    }

    fn whom(&self) -> Whom {
        Whom::Service
    }

    fn depends_on(&self, _: &Reads, _: &Attested) {}
}

/// A set as it is now. Immutable: everybody who serves it shares it.
#[derive(Debug)]
pub(crate) struct SetNow {
    pub(crate) outcome: Outcome,
    /// In the order of the issuer, without those that have expired.
    pub(crate) svids: Vec<Arc<KeptSvid>>,
    /// Of the own trust domain, and of those that the SVIDs federate with.
    pub(crate) bundles: Arc<TrustBundleSet>,
    /// What goes to a workload.
    pub(crate) contexts: Arc<Contexts>,
    /// What is wrong, if anything is.
    pub(crate) reason: Option<String>,
    pub(crate) reads: Arc<Reads>,
    /// What was known of the bearer when it was granted or refused.
    pub(crate) attested: Attested,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Nothing yet.
    Pending,
    /// There are SVIDs.
    Held,
    /// The issuer grants none.
    Refused,
    /// There are none, and it is not known whether they would be granted.
    Unavailable,
    /// Nobody was left to keep it for. Whoever still follows it subscribes anew.
    Ended,
}

impl SetNow {
    /// Before anything is known.
    pub(crate) fn starting() -> Self {
        Self {
            outcome: Outcome::Pending,
            svids: Vec::new(),
            bundles: Arc::default(),
            contexts: Arc::default(),
            reason: Some("starting".to_owned()),
            reads: Arc::new(Reads::All),
            attested: Attested {
                workload: None,
                at: Instant::now(),
            },
        }
    }

    /// Whether there is an SVID, and what is wrong.
    pub(crate) fn state(&self) -> IdentityState {
        IdentityState {
            held: self.outcome == Outcome::Held,
            reason: self.reason.clone(),
        }
    }

    /// When the first of its SVIDs expires.
    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        self.svids.iter().map(|svid| svid.not_after).min()
    }
}

/// What every set needs of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    pub(crate) issuance: Arc<Issuance>,
    pub(crate) trust: Arc<Trust>,
    /// Whether there is a bot identity to ask with.
    pub(crate) bot: watch::Receiver<IdentityState>,
    /// Where every set is listed.
    pub(crate) roll: Arc<Roll>,
    /// Where every set is written.
    pub(crate) sealed: Arc<Sealed>,
}

/// What serves until there is a set of its own.
pub(crate) enum Before<'a> {
    Nothing,
    /// A set of the same selection.
    Meanwhile(&'a SetNow),
    /// The set that the process before this one had.
    Sealed(Restored),
}

/// A set that is kept fresh until this is dropped.
#[derive(Debug)]
pub(crate) struct KeptSet {
    place: Place,
    whom: Whom,
    now: watch::Receiver<Arc<SetNow>>,
    _task: AbortOnDropHandle<()>,
}

impl KeptSet {
    /// Starts to keep what is selected.
    pub(crate) fn start(
        place: Place,
        bearer: Arc<dyn Bearer>,
        keeping: Keeping,
        before: Before<'_>,
    ) -> Self {
        let (now, receiver) = watch::channel(Arc::new(SetNow::starting()));
        let now = Arc::new(now);
        keeping.roll.add(Listed {
            selector: place.0.clone(),
            keeper: Arc::downgrade(&now),
        });
        let keeper = Keeper::new(place, bearer, keeping, before, now);
        Self {
            place: keeper.place(),
            whom: keeper.whom(),
            now: receiver,
            _task: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// Follows it.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<SetNow>> {
        self.now.clone()
    }

    /// Takes it out of the sealed store: it is given up before its time.
    pub(crate) fn forget(&self, sealed: &Sealed) {
        let now = self.now();
        let name = Name::new(self.whom, self.place.clone(), &now.reads, &now.attested);
        sealed.put(&name, None);
    }

    /// As it is now.
    pub(crate) fn now(&self) -> Arc<SetNow> {
        self.now.borrow().clone()
    }
}
