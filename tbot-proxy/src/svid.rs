//! Workload identities: one task keeps one SVID fresh in one [`IdentitySource`],
//! which every service that selected it shares.
//!
//! What was issued last stays in force until it expires, whatever happens to the
//! issuer meanwhile; then it is taken away, and its services say that they are not
//! ready. Every issuance has a new key.

use std::{sync::Arc, time::SystemTime};

use identity::{IdentitySource, X509Svid};
use proto::issue::v1::{IssueX509SvidRequest, issue_service_client::IssueServiceClient};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    configuration::Selector,
    join::{PATIENCE, expired_on_arrival},
    key::{Key, time_of},
    link::IssuerLink,
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
        link: Arc<IssuerLink>,
        trust: Arc<Trust>,
        bot: watch::Receiver<IdentityState>,
        meanwhile: Option<Arc<X509Svid>>,
    ) -> Self {
        let source = IdentitySource::new();
        let (state, receiver) = watch::channel(match &meanwhile {
            Some(_) => IdentityState::held(),
            None => IdentityState::waiting("starting"),
        });
        let bundles = trust.bundles().borrow().as_ref().clone();
        source.set_bundles(bundles);
        if let Some(svid) = &meanwhile {
            source.set_svid(svid.clone());
        }
        let keeper = Keeper {
            selector,
            link,
            trust,
            bot,
            source: source.clone(),
            state,
        };
        Self {
            source,
            state: receiver,
            _task: AbortOnDropHandle::new(tokio::spawn(keeper.run(meanwhile))),
        }
    }
}

#[derive(Debug)]
struct Keeper {
    selector: Selector,
    link: Arc<IssuerLink>,
    trust: Arc<Trust>,
    bot: watch::Receiver<IdentityState>,
    source: Arc<IdentitySource>,
    state: watch::Sender<IdentityState>,
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
        self.source
            .set_bundles(bundles.borrow_and_update().as_ref().clone());
        loop {
            let now = SystemTime::now();
            if schedule.has_expired(now) {
                lost_at = self.expire(&mut schedule, now).or(lost_at);
            }
            let due = schedule.is_due(now);
            let bot = self.bot.borrow_and_update().clone();
            self.tell(reason(lost_at, &bot, trouble.as_deref()));
            if due && bot.held {
                let renewal = self.renew(&mut order);
                tokio::pin!(renewal);
                // The issuer may be long in answering: what is in force meanwhile expires
                // and follows the trust bundles all the same.
                let renewed = loop {
                    tokio::select! {
                        renewed = &mut renewal => break renewed,
                        () = schedule.expiry() => {
                            lost_at = self.expire(&mut schedule, SystemTime::now()).or(lost_at);
                            self.tell(reason(lost_at, &bot, trouble.as_deref()));
                        }
                        Ok(()) = bundles.changed() => {
                            self.source.set_bundles(bundles.borrow_and_update().as_ref().clone());
                        }
                    }
                };
                match renewed {
                    Ok((life, under)) => {
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
                Ok(()) = bundles.changed() => {
                    self.source.set_bundles(bundles.borrow_and_update().as_ref().clone());
                }
                Ok(()) = order.changed() => {
                    let Some(order) = *order.borrow_and_update() else { continue };
                    if obtained.is_older_than(order) {
                        schedule.hasten(order.within, SystemTime::now());
                    }
                }
            }
        }
    }

    /// Has an SVID issued and puts it in force; its life, and the order that it was obtained under.
    async fn renew(
        &self,
        order: &mut watch::Receiver<Option<RenewOrder>>,
    ) -> Result<(Life, Obtained), String> {
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
        let (svid, life) = issued?;
        tracing::info!(
            id = %svid.id(),
            serial = %svid.serial(),
            not_after = rfc3339(svid.not_after()),
            "SVID issued"
        );
        self.source.set_svid(Arc::new(svid));
        Ok((life, Obtained::under(under)))
    }

    async fn issue(&self) -> Result<(X509Svid, Life), String> {
        let key = Key::generate().map_err(|error| error.to_string())?;
        let request = IssueX509SvidRequest {
            workload_identity: self.selector.workload_identity.clone(),
            csr_der: key.csr(),
            ttl: Some(prost_types::Duration {
                seconds: self.selector.ttl.as_secs().cast_signed(),
                nanos: 0,
            }),
        };
        let answer = self
            .link
            .call(|channel| {
                let request = request.clone();
                async move {
                    IssueServiceClient::new(channel)
                        .issue_x509_svid(request)
                        .await
                }
            })
            .await
            .map_err(|error| {
                let name = &self.selector.workload_identity;
                format!("workload_identity `{name}`: {error}")
            })?;
        let svid = key
            .certified(answer.chain_der)
            .map_err(|error| format!("the issuer's answer cannot be used: {error}"))?;
        let now = SystemTime::now();
        if svid.not_after() <= now {
            return Err(expired_on_arrival(svid.not_after(), now));
        }
        let life = life(&svid, time_of(answer.renew_at));
        Ok((svid, life))
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
