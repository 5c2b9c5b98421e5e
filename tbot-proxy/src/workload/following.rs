//! One workload that follows what is kept for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};
use workload_api::Denied;

use crate::{
    cache::{Cache, Place, Unknown, Workload, WorkloadSet},
    kept::{Outcome, SetNow},
};

/// How long a set may take to tell of what it was settled on.
const SETTLING: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Following {
    cache: Arc<Cache>,
    place: Place,
    workload: Arc<Workload>,
    followed: Option<Followed>,
    /// What is known of the workload is to be read no earlier than this.
    since: Instant,
}

struct Followed {
    set: Arc<WorkloadSet>,
    now: watch::Receiver<Arc<SetNow>>,
    /// Whether there is something that has not been looked at.
    is_new: bool,
}

impl Following {
    pub(super) fn new(cache: Arc<Cache>, place: Place, workload: Arc<Workload>) -> Self {
        Self {
            cache,
            place,
            workload,
            followed: None,
            since: Instant::now(),
        }
    }

    /// What is held for the workload, as soon as there is something new of it. It was
    /// attested after that was granted. An error is the last answer.
    pub(super) async fn next(&mut self) -> Result<(Arc<WorkloadSet>, Arc<SetNow>), Denied> {
        loop {
            let followed = match &mut self.followed {
                Some(followed) => followed,
                slot => {
                    let attested = self.workload.attested_since(self.since).await;
                    let attested = attested.map_err(denied)?;
                    let set = self.cache.set_for(&self.place, &self.workload, &attested);
                    let set = set.map_err(|error| Denied::Unavailable(error.to_string()))?;
                    slot.insert(Followed {
                        now: set.follow(),
                        set,
                        is_new: true,
                    })
                }
            };
            if !followed.is_new && followed.now.changed().await.is_err() {
                self.followed = None;
                continue;
            }
            followed.is_new = false;
            let now = followed.now.borrow_and_update().clone();
            let attested = self
                .workload
                .attested_since(self.since.max(now.attested.at));
            let attested = attested.await.map_err(denied)?;
            if !WorkloadSet::is_for(&now, &attested) {
                // It may be that the set knows what it is for, and has not said so yet.
                if now.outcome != Outcome::Ended {
                    _ = timeout(SETTLING, followed.now.changed()).await;
                }
                self.followed = None;
                continue;
            }
            let why = || now.reason.clone();
            match now.outcome {
                Outcome::Held => return Ok((followed.set.clone(), now)),
                Outcome::Refused => {
                    let nothing = "no identity is issued to this workload".to_owned();
                    return Err(Denied::NoIdentity(why().unwrap_or(nothing)));
                }
                Outcome::Unavailable => {
                    let unknown = "the issuer cannot be asked now".to_owned();
                    return Err(Denied::Unavailable(why().unwrap_or(unknown)));
                }
                Outcome::Pending | Outcome::Ended => {}
            }
        }
    }
}

pub(super) fn denied(unknown: Unknown) -> Denied {
    let why = unknown.to_string();
    match unknown {
        Unknown::Gone(_) => Denied::NoIdentity(why),
        Unknown::Unavailable(_) => Denied::Unavailable(why),
    }
}
