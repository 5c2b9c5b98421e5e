//! Workload identities: one task keeps one SVID fresh in one [`IdentitySource`],
//! which every service that selected it shares.
//!
//! What was issued last stays in force until it expires, whatever happens to the
//! issuer meanwhile; then it is taken away, and its services say that they are not
//! ready. Every issuance has a new key.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use identity::{IdentitySource, TrustBundle, TrustBundleSet, X509Svid};
use proto::issue::v1::{
    SvidRequest, X509Request, svid::Document, svid_request::Document as Wanted,
    svid_request::Selector as Select,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    configuration::Selector,
    issuance::Issuance,
    join::{PATIENCE, expired_on_arrival},
    key::{Key, time_of},
    metrics::{RENEWALS, result},
    schedule::{Life, Schedule},
    state::{IdentityState, publish, rfc3339},
    trust::{Obtained, RenewOrder, Trust},
};

/// An identity that is kept fresh until this is dropped.
#[derive(Debug)]
pub(crate) struct KeptIdentity {
    pub(crate) source: Arc<IdentitySource>,
    pub(crate) state: watch::Receiver<IdentityState>,
    _task: AbortOnDropHandle<()>,
}

impl KeptIdentity {
    /// Starts to keep what `selector` names. `bot` tells whether there is a bot identity to ask with.
    /// `meanwhile`, an SVID of the same workload identity, serves until there is one of its own.
    pub(crate) fn start(
        selector: Selector,
        issuance: Arc<Issuance>,
        trust: Arc<Trust>,
        bot: watch::Receiver<IdentityState>,
        meanwhile: Option<Held>,
    ) -> Self {
        let source = IdentitySource::new();
        let (state, receiver) = watch::channel(match &meanwhile {
            Some(_) => IdentityState::held(),
            None => IdentityState::waiting("starting"),
        });
        let mut keeper = Keeper {
            selector,
            issuance,
            trust,
            bot,
            source: source.clone(),
            state,
            trusted: BTreeSet::new(),
        };
        let svid = meanwhile.map(|held| {
            keeper.hold(&held);
            held.svid
        });
        Self {
            source,
            state: receiver,
            _task: AbortOnDropHandle::new(tokio::spawn(keeper.run(svid))),
        }
    }

    /// What is in force, if anything is.
    pub(crate) fn held(&self) -> Option<Held> {
        let now = self.source.current();
        let svid = now.svid.clone()?;
        let own = svid.id().trust_domain();
        let others = now.bundles.iter().map(|bundle| bundle.trust_domain());
        Some(Held {
            federates_with: others
                .filter(|name| **name != own)
                .map(ToString::to_string)
                .collect(),
            svid,
        })
    }
}

/// An SVID, and what may be verified beside it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) svid: Arc<X509Svid>,
    /// Trust domains other than its own whose bundles go with it.
    pub(crate) federates_with: Vec<String>,
}

/// What has come of an issuance.
struct Issued {
    held: Held,
    renew_at: Option<SystemTime>,
}

#[derive(Debug)]
struct Keeper {
    selector: Selector,
    issuance: Arc<Issuance>,
    trust: Arc<Trust>,
    bot: watch::Receiver<IdentityState>,
    source: Arc<IdentitySource>,
    state: watch::Sender<IdentityState>,
    /// Trust domains whose bundles go with what is held, or was held last.
    trusted: BTreeSet<String>,
}

impl Keeper {
    async fn run(mut self, meanwhile: Option<Arc<X509Svid>>) {
        let mut schedule = match meanwhile {
            Some(svid) => Schedule::overdue(life(&svid, None), SystemTime::now()),
            None => Schedule::empty(SystemTime::now()),
        };
        let mut order = self.trust.order();
        let mut bundles = self.trust.bundles();
        let mut obtained = Obtained::under(None);
        let mut trouble: Option<String> = None;
        let mut lost_at = None;
        loop {
            bundles.mark_unchanged();
            self.follow_bundles();
            let now = SystemTime::now();
            if schedule.has_expired(now) {
                lost_at = self.expire(&mut schedule, now).or(lost_at);
            }
            let due = schedule.is_due(now);
            let bot = self.bot.borrow_and_update().clone();
            self.tell(reason(lost_at, &bot, trouble.as_deref()));
            if due && bot.held {
                let renewed = {
                    let renewal = self.issue_under(&mut order);
                    tokio::pin!(renewal);
                    // The issuer may be long in answering: what is in force meanwhile expires
                    // and follows the trust bundles all the same.
                    loop {
                        tokio::select! {
                            renewed = &mut renewal => break renewed,
                            () = schedule.expiry() => {
                                lost_at = self.expire(&mut schedule, SystemTime::now()).or(lost_at);
                                self.tell(reason(lost_at, &bot, trouble.as_deref()));
                            }
                            Ok(()) = bundles.changed() => {
                                bundles.mark_unchanged();
                                self.follow_bundles();
                            }
                        }
                    }
                };
                match renewed {
                    Ok((issued, under)) => {
                        let life = self.put_in_force(&issued);
                        schedule.renewed(life, SystemTime::now());
                        obtained = under;
                        trouble = None;
                        lost_at = None;
                    }
                    Err(error) => {
                        let delay = schedule.failed(SystemTime::now(), false);
                        tracing::warn!(
                            workload_identity = self.selector.workload_identity,
                            error,
                            retry_in_seconds = delay.as_secs_f64().round(),
                            "SVID not issued"
                        );
                        trouble = Some(error);
                    }
                }
                continue;
            }
            let wait = async {
                if due {
                    schedule.wait_for_expiry(now).await;
                } else {
                    schedule.wait(now).await;
                }
            };
            tokio::select! {
                () = wait => {}
                Ok(()) = self.bot.changed() => {}
                Ok(()) = bundles.changed() => {}
                Ok(()) = order.changed() => {
                    let Some(order) = *order.borrow_and_update() else { continue };
                    if obtained.is_older_than(order) {
                        schedule.hasten(order.within, SystemTime::now());
                    }
                }
            }
        }
    }

    /// Has an SVID issued; the order that it was obtained under.
    async fn issue_under(
        &self,
        order: &mut watch::Receiver<Option<RenewOrder>>,
    ) -> Result<(Issued, Obtained), String> {
        // Asked before the issuer's first message, it could not be told from one that is
        // to be renewed.
        _ = tokio::time::timeout(PATIENCE, order.wait_for(Option::is_some)).await;
        let under = *order.borrow_and_update();
        let issued = self.issue().await;
        metrics::counter!(
            RENEWALS,
            "identity" => self.selector.workload_identity.clone(),
            "result" => result(issued.is_ok()),
        )
        .increment(1);
        Ok((issued?, Obtained::under(under)))
    }

    async fn issue(&self) -> Result<Issued, String> {
        let key = Key::generate().map_err(|error| error.to_string())?;
        let name = &self.selector.workload_identity;
        let request = SvidRequest {
            selector: Some(Select::Name(name.clone())),
            document: Some(Wanted::X509(X509Request {
                csrs_der: vec![key.csr()],
            })),
            ttl: Some(prost_types::Duration {
                seconds: self.selector.ttl.as_secs().cast_signed(),
                nanos: 0,
            }),
            workload_attributes: None,
        };
        let answer = self
            .issuance
            .issue(request)
            .await
            .map_err(|error| format!("workload_identity `{name}`: {error}"))?;
        let unusable = |error: &str| format!("the issuer's answer cannot be used: {error}");
        let Some(Document::X509(document)) = answer.document else {
            return Err(unusable("it holds no X509-SVID"));
        };
        let svid = key
            .certified(document.chain_der)
            .map_err(|error| unusable(&error.to_string()))?;
        let now = SystemTime::now();
        if svid.not_after() <= now {
            return Err(expired_on_arrival(svid.not_after(), now));
        }
        Ok(Issued {
            renew_at: time_of(answer.renew_at),
            held: Held {
                svid: Arc::new(svid),
                federates_with: answer.federates_with,
            },
        })
    }

    fn put_in_force(&mut self, issued: &Issued) -> Life {
        let svid = &issued.held.svid;
        tracing::info!(
            id = %svid.id(),
            serial = %svid.serial(),
            not_after = rfc3339(svid.not_after()),
            "SVID issued"
        );
        self.hold(&issued.held);
        life(svid, issued.renew_at)
    }

    /// SVID and bundles change together: the peers of a trust domain that the resource no
    /// longer names are not let in under the new SVID.
    fn hold(&mut self, held: &Held) {
        let own = held.svid.id().trust_domain().to_string();
        self.trusted = held.federates_with.iter().cloned().chain([own]).collect();
        self.source.set(held.svid.clone(), self.trusted_bundles());
    }

    fn follow_bundles(&self) {
        self.source.set_bundles(self.trusted_bundles());
    }

    /// Of all that the issuer tells, those of the own trust domain and of the ones that the
    /// resource federates with. They stay apart: an authority vouches for its trust domain
    /// only (FE-07).
    fn trusted_bundles(&self) -> TrustBundleSet {
        let bundles = self.trust.bundles().borrow().clone();
        // The own one is that of whatever SVID the source shows.
        let shown = self.source.current().svid.clone();
        let is_own = |name: &str| {
            let shown = shown.as_ref();
            shown.is_some_and(|svid| svid.id().trust_domain_name() == name)
        };
        TrustBundleSet::new(
            bundles
                .iter()
                .filter(|bundle| {
                    let name = bundle.trust_domain().as_str();
                    self.trusted.contains(name) || is_own(name)
                })
                .map(|bundle| TrustBundle::clone(bundle)),
        )
    }

    /// Takes the SVID away; the end of its life.
    fn expire(&self, schedule: &mut Schedule, now: SystemTime) -> Option<SystemTime> {
        let expired = self.source.current().svid.clone();
        if let Some(svid) = &expired {
            tracing::error!(
                id = %svid.id(),
                not_after = rfc3339(svid.not_after()),
                "the SVID has expired and is taken away"
            );
        }
        self.source.clear_svid();
        schedule.lost(now);
        Some(expired?.not_after())
    }

    fn tell(&self, reason: Option<String>) {
        let held = self.source.current().svid.is_some();
        publish(&self.state, IdentityState { held, reason });
    }
}

/// What is wrong, as far as it is known. `lost_at`: when the SVID expired, if it did.
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

fn life(svid: &X509Svid, renew_at: Option<SystemTime>) -> Life {
    Life {
        not_before: svid.not_before(),
        not_after: svid.not_after(),
        renew_at,
    }
}
