//! The task that keeps one set fresh.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::Arc,
    time::{Instant, SystemTime},
};

use identity::{TrustBundle, TrustBundleSet};
use tokio::sync::watch;

use super::{
    Attested, Bearer, Before, Contexts, Keeping, KeptSvid, Outcome, SetKind, SetNow, asking,
    sealing::{Counts, Sealing, same},
};
use crate::{
    cache::Place,
    configuration::Selector,
    issuance::{Issuance, IssueError},
    join::PATIENCE,
    metrics::{RENEWALS, result},
    reads::Reads,
    schedule::{Life, Schedule, sleep},
    sealed::{Restored, Whom},
    state::{IdentityState, rfc3339},
    trust::{Obtained, RenewOrder},
};

pub(super) struct Keeper {
    selector: Selector,
    kind: SetKind,
    bearer: Arc<dyn Bearer>,
    keeping: Keeping,
    svids: Vec<Arc<KeptSvid>>,
    /// Trust domains whose bundles go with what is held, or was held last.
    trusted: BTreeSet<String>,
    /// Whether the issuer's last word was no, and the bearer yields to it.
    refused: bool,
    /// Whether anything has come of asking yet.
    asked: bool,
    reads: Arc<Reads>,
    attested: Attested,
    obtained: Obtained,
    now: Arc<watch::Sender<Arc<SetNow>>>,
    sealing: Sealing,
}

/// What came of one attempt.
enum Attempt {
    Granted(Vec<Arc<KeptSvid>>, Reads),
    Failed(IssueError),
    /// Nobody is there to ask for.
    Nobody,
}

impl Keeper {
    pub(super) fn new(
        (selector, kind): Place,
        bearer: Arc<dyn Bearer>,
        keeping: Keeping,
        before: Before<'_>,
        now: Arc<watch::Sender<Arc<SetNow>>>,
    ) -> Self {
        let (svids, restored) = match before {
            Before::Nothing => (vec![], None),
            Before::Meanwhile(set) => (set.svids.clone(), None),
            Before::Sealed(restored) => (vec![], Some(restored)),
        };
        let attested = now.borrow().attested.clone();
        let place = (selector.clone(), kind);
        let sealing = Sealing::new(keeping.sealed.clone(), bearer.whom(), place, restored);
        let mut keeper = Self {
            selector,
            kind,
            bearer,
            keeping,
            trusted: trusted(&svids),
            svids,
            refused: false,
            asked: false,
            reads: Arc::new(Reads::All),
            attested,
            obtained: Obtained::under(None),
            now,
            sealing,
        };
        keeper.publish(None, false);
        keeper
    }

    pub(super) async fn run(mut self) {
        let mut order = self.keeping.trust.order();
        let restored = self.restore(&mut order).await;
        let now = SystemTime::now();
        let mut schedule = match (restored, life(&self.svids)) {
            (Some(schedule), _) => schedule,
            (None, Some(life)) => Schedule::overdue(life, now),
            (None, None) => Schedule::empty(now),
        };
        let mut bundles = self.keeping.trust.bundles();
        let mut bot = self.keeping.bot.clone();
        let mut trouble: Option<String> = None;
        let mut lost_at = None;
        loop {
            bundles.mark_unchanged();
            let now = SystemTime::now();
            lost_at = self.expire(&mut schedule, now).or(lost_at);
            let due = schedule.is_due(now);
            let bot_now = bot.borrow_and_update().clone();
            let is_waiting_for_bot = !self.asked && !bot_now.held;
            self.publish(
                reason(lost_at, &bot_now, trouble.as_deref()),
                is_waiting_for_bot,
            );
            if due && bot_now.held {
                let attempt = {
                    let renewal = attempt(
                        self.keeping.issuance.clone(),
                        self.selector.clone(),
                        self.kind,
                        self.bearer.clone(),
                        self.svids.len(),
                        &mut order,
                    );
                    tokio::pin!(renewal);
                    // The issuer may be long in answering: what is in force meanwhile expires
                    // and follows the trust bundles all the same.
                    loop {
                        tokio::select! {
                            attempt = &mut renewal => break attempt,
                            () = schedule.expiry() => {
                                lost_at = self.expire(&mut schedule, SystemTime::now()).or(lost_at);
                            }
                            Ok(()) = bundles.changed() => bundles.mark_unchanged(),
                        }
                        self.publish(reason(lost_at, &bot_now, trouble.as_deref()), false);
                    }
                };
                let (attempt, attested, under) = attempt;
                match attempt {
                    Attempt::Granted(svids, reads) => {
                        self.bearer.depends_on(&reads, &attested);
                        (self.attested, self.obtained) = (attested, under);
                        self.put_in_force(svids, reads);
                        match life(&self.svids) {
                            Some(life) => schedule.renewed(life, SystemTime::now()),
                            // Nothing may be had by labels: asked again like what is refused.
                            None => _ = schedule.failed(SystemTime::now(), true),
                        }
                        (trouble, lost_at) = (None, None);
                    }
                    Attempt::Failed(error) => {
                        let mut slow = false;
                        if let IssueError::Refused { reads, .. } = &error {
                            self.bearer.depends_on(reads, &attested);
                            (self.attested, self.obtained) = (attested, under);
                            self.reads = Arc::new(reads.clone());
                            if self.bearer.yields_to_refusal() {
                                self.take_away("the issuer refuses it");
                                schedule.lost(SystemTime::now());
                                self.refused = true;
                                slow = true;
                            }
                        }
                        self.asked = true;
                        let delay = schedule.failed(SystemTime::now(), slow);
                        tracing::warn!(
                            selected = %self.selector.selection,
                            %error,
                            retry_in_seconds = delay.as_secs_f64().round(),
                            "SVIDs not issued"
                        );
                        trouble = Some(format!("{}: {error}", self.selector.selection));
                    }
                    Attempt::Nobody => {
                        if self.rest(&mut schedule, &mut order).await.is_break() {
                            self.end();
                            return;
                        }
                    }
                }
                continue;
            }
            tokio::select! {
                () = schedule.wait_for_more(now) => {}
                Ok(()) = bot.changed() => {}
                Ok(()) = bundles.changed() => {}
                Ok(()) = order.changed() => {
                    let Some(order) = *order.borrow_and_update() else { continue };
                    if let Some(within) = self.obtained.renewal_within(order) {
                        schedule.hasten(within, SystemTime::now());
                    }
                }
            }
        }
    }

    /// Nobody is there to renew for, or an attestor fails for all who are. What is held
    /// stays for whoever comes back before it expires, as a program that is restarted does
    /// while the issuer is away, unless policy is another by then. `Break`: the set is
    /// given up.
    async fn rest(
        &mut self,
        schedule: &mut Schedule,
        order: &mut watch::Receiver<Option<RenewOrder>>,
    ) -> ControlFlow<()> {
        let mut bundles = self.keeping.trust.bundles();
        loop {
            bundles.mark_unchanged();
            self.expire(schedule, SystemTime::now());
            let order_now = *order.borrow_and_update();
            if order_now.is_some_and(|order| self.obtained.is_of_other_policy(order)) {
                self.svids.clear();
            }
            if self.svids.is_empty() && self.bearer.retires() {
                return ControlFlow::Break(());
            }
            self.publish(None, false);
            let again = match self.bearer.is_alone() {
                true => None,
                false => Some(schedule.failed(SystemTime::now(), false)),
            };
            tokio::select! {
                () = sleep(again) => return ControlFlow::Continue(()),
                () = self.bearer.returned() => return ControlFlow::Continue(()),
                () = schedule.expiry() => {}
                Ok(()) = order.changed() => {}
                Ok(()) = bundles.changed() => {}
            }
        }
    }

    fn put_in_force(&mut self, svids: Vec<Arc<KeptSvid>>, reads: Reads) {
        for svid in &svids {
            tracing::info!(
                id = %svid.id,
                workload_identity = svid.workload_identity,
                document = ?svid.document,
                not_after = rfc3339(svid.not_after),
                "SVID issued"
            );
        }
        if svids.is_empty() {
            self.take_away("the issuer grants it no longer");
        }
        self.trusted = trusted(&svids);
        self.refused = svids.is_empty();
        self.asked = true;
        self.svids = svids;
        self.reads = Arc::new(reads);
    }

    /// Takes away what has expired; the end of its life, if that was all there was.
    fn expire(&mut self, schedule: &mut Schedule, now: SystemTime) -> Option<SystemTime> {
        if !schedule.has_expired(now) {
            return None;
        }
        let mut last = None;
        self.svids.retain(|svid| {
            let expired = svid.not_after <= now;
            if expired {
                last = last.max(Some(svid.not_after));
                tracing::error!(
                    id = %svid.id,
                    not_after = rfc3339(svid.not_after),
                    "the SVID has expired and is taken away"
                );
            }
            !expired
        });
        match life(&self.svids) {
            Some(life) => *schedule = Schedule::overdue(life, now),
            None => schedule.lost(now),
        }
        last.filter(|_| self.svids.is_empty())
    }

    fn take_away(&mut self, why: &str) {
        for svid in std::mem::take(&mut self.svids) {
            tracing::warn!(
                id = %svid.id,
                workload_identity = svid.workload_identity,
                why,
                "the SVID is taken away"
            );
        }
    }

    /// What was held before this process began is in force again, if it counts: its
    /// schedule.
    async fn restore(
        &mut self,
        order: &mut watch::Receiver<Option<RenewOrder>>,
    ) -> Option<Schedule> {
        let counts = self.sealing.restore(&self.keeping.trust, order);
        let Counts { set, is_due } = counts.await?;
        self.bearer.depends_on(&set.reads, &set.attested);
        self.trusted = trusted(&set.svids);
        (self.svids, self.reads) = (set.svids, set.reads);
        (self.attested, self.obtained) = (set.attested, set.obtained);
        self.asked = true;
        let (life, now) = (life(&self.svids)?, SystemTime::now());
        Some(match is_due {
            true => Schedule::overdue(life, now),
            false => Schedule::held(life, now),
        })
    }

    pub(super) fn place(&self) -> Place {
        (self.selector.clone(), self.kind)
    }

    pub(super) fn whom(&self) -> Whom {
        self.bearer.whom()
    }

    /// Makes known what holds now.
    fn publish(&mut self, reason: Option<String>, waits_for_bot: bool) {
        let outcome = match (self.svids.is_empty(), self.refused) {
            (false, _) => Outcome::Held,
            (true, true) => Outcome::Refused,
            (true, false) if self.asked || waits_for_bot => Outcome::Unavailable,
            (true, false) => Outcome::Pending,
        };
        self.tell(outcome, reason);
    }

    fn end(&mut self) {
        self.svids.clear();
        self.tell(Outcome::Ended, None);
    }

    fn tell(&mut self, outcome: Outcome, reason: Option<String>) {
        self.sealing.save(&self.svids, || Restored {
            svids: self.svids.clone(),
            reads: self.reads.clone(),
            attested: self.attested.clone(),
            obtained: self.obtained,
        });
        let bundles = self.trusted_bundles();
        self.now.send_if_modified(|now| {
            let same_svids = same(&now.svids, &self.svids);
            let same_bundles = *now.bundles == bundles;
            let is_same = same_svids
                && same_bundles
                && now.outcome == outcome
                && now.reason == reason
                && now.reads == self.reads
                && now.attested.at == self.attested.at;
            if is_same {
                return false;
            }
            let bundles = match same_bundles {
                true => now.bundles.clone(),
                false => Arc::new(bundles),
            };
            // What is the same for workloads stays the same object: it is not sent again.
            let contexts = match same_svids && same_bundles {
                true => now.contexts.clone(),
                false => Arc::new(Contexts::of(&self.svids, &bundles, &now.contexts)),
            };
            *now = Arc::new(SetNow {
                outcome,
                svids: self.svids.clone(),
                bundles,
                contexts,
                reason,
                reads: self.reads.clone(),
                attested: self.attested.clone(),
            });
            true
        });
    }

    /// Of all that the issuer tells, those of the own trust domain and of the ones that the
    /// SVIDs federate with. They stay apart: an authority vouches for its trust domain
    /// only (FE-07). SVID and bundles change together: the peers of a trust domain that the
    /// resource no longer names are not let in under the new SVID.
    fn trusted_bundles(&self) -> TrustBundleSet {
        let bundles = self.keeping.trust.bundles().borrow().clone();
        TrustBundleSet::new(
            bundles
                .iter()
                .filter(|bundle| self.trusted.contains(bundle.trust_domain().as_str()))
                .map(|bundle| TrustBundle::clone(bundle)),
        )
    }
}

/// Asks the issuer once; with what was known of the bearer, and the order that it was under.
async fn attempt(
    issuance: Arc<Issuance>,
    selector: Selector,
    kind: SetKind,
    bearer: Arc<dyn Bearer>,
    expected: usize,
    order: &mut watch::Receiver<Option<RenewOrder>>,
) -> (Attempt, Attested, Obtained) {
    // Asked before the issuer's first message, it could not be told from one that is
    // to be renewed.
    _ = tokio::time::timeout(PATIENCE, order.wait_for(Option::is_some)).await;
    let under = Obtained::under(*order.borrow_and_update());
    let Some(attested) = bearer.attested().await else {
        let nothing = Attested {
            workload: None,
            at: Instant::now(),
        };
        return (Attempt::Nobody, nothing, under);
    };
    let workload = attested.workload.as_deref();
    let granted = asking::ask(&issuance, &selector, kind, workload, expected).await;
    metrics::counter!(
        RENEWALS,
        "identity" => selector.selection.metric_label(),
        "result" => result(granted.is_ok()),
    )
    .increment(1);
    let attempt = match granted {
        Ok(granted) => Attempt::Granted(granted.svids, granted.reads),
        Err(error) => Attempt::Failed(error),
    };
    (attempt, attested, under)
}

/// The trust domains whose bundles go with these.
fn trusted(svids: &[Arc<KeptSvid>]) -> BTreeSet<String> {
    svids
        .iter()
        .flat_map(|svid| {
            let own = svid.id.trust_domain_name().to_owned();
            svid.federates_with.iter().cloned().chain([own])
        })
        .collect()
}

/// The life of a set: that of the SVID that is to be renewed first.
fn life(svids: &[Arc<KeptSvid>]) -> Option<Life> {
    let life = |svid: &Arc<KeptSvid>| Life {
        not_before: svid.not_before,
        not_after: svid.not_after,
        renew_at: svid.renew_at,
    };
    let first_to_renew = svids.iter().map(life).min_by_key(Life::renewal)?;
    let first_to_end = svids.iter().map(|svid| svid.not_after).min()?;
    Some(Life {
        not_after: first_to_end,
        ..first_to_renew
    })
}

/// What is wrong, as far as it is known. `lost_at`: when the last SVID expired, if it did.
fn reason(
    lost_at: Option<SystemTime>,
    bot: &IdentityState,
    trouble: Option<&str>,
) -> Option<String> {
    let (own, bots) = (trouble, bot.reason.as_deref());
    let why = if bot.held { own.or(bots) } else { bots.or(own) };
    match (lost_at.map(rfc3339), why) {
        (Some(at), Some(why)) => Some(format!("the SVID has expired at {at}: {why}")),
        (Some(at), None) => Some(format!("the SVID has expired at {at}")),
        (None, why) => why.map(str::to_owned),
    }
}
