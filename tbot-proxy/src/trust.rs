//! What the issuer tells without being asked: trust bundles, and orders to renew.
//!
//! One follower holds one `Watch` stream. Every message is complete state, so a
//! lost connection loses nothing: the next stream begins with what holds then. An
//! order to renew is a number that rises; each identity knows the number that it
//! was obtained under, so that an order given while the agent was away, or before
//! the stream was open, is still followed.

use std::{sync::Arc, time::Duration};

use identity::{IdentitySource, TrustBundle, TrustBundleSet, TrustDomain, X509Svid};
use proto::{
    issue::v1::{WatchRequest, WatchResponse, issue_service_client::IssueServiceClient},
    join::v1::TrustBundle as WireBundle,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    link::{CallError, IssuerLink},
    metrics::{BUNDLE_UPDATES, ISSUER_WATCHED},
    schedule::Backoff,
};

/// The trust bundles and the order to renew that hold now; both can be followed.
#[derive(Debug)]
pub(crate) struct Trust {
    bundles: watch::Sender<Arc<TrustBundleSet>>,
    order: watch::Sender<Option<RenewOrder>>,
    hearing: watch::Sender<Hearing>,
}

/// Whether the issuer tells us what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// It has not been asked yet.
    Unknown,
    /// It does.
    Followed,
    /// It is away, or refuses to.
    Lost,
}

/// The newest order to renew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RenewOrder {
    /// `WatchResponse.renew_epoch`.
    pub(crate) epoch: u64,
    /// Spread the renewal over this.
    pub(crate) within: Duration,
    /// Rises with each order that was given here (`SIGUSR1`).
    pub(crate) local: u64,
    /// `WatchResponse.policy_epoch`; `None`: the issuer has not told.
    pub(crate) policy: Option<u64>,
    /// Spread over this what is asked again because policy is another.
    pub(crate) policy_within: Duration,
    /// Rises when the issuer refuses to tell us anything: the bot is locked, or gone.
    pub(crate) refusals: u64,
}

impl Trust {
    pub(crate) fn new(bundles: TrustBundleSet) -> Arc<Self> {
        Arc::new(Self {
            bundles: watch::Sender::new(Arc::new(bundles)),
            order: watch::Sender::new(None),
            hearing: watch::Sender::new(Hearing::Unknown),
        })
    }

    pub(crate) fn bundles(&self) -> watch::Receiver<Arc<TrustBundleSet>> {
        self.bundles.subscribe()
    }

    /// `None` until the issuer has told.
    pub(crate) fn order(&self) -> watch::Receiver<Option<RenewOrder>> {
        self.order.subscribe()
    }

    /// Whether the issuer's pushes are followed now.
    pub(crate) fn is_followed(&self) -> bool {
        *self.hearing.borrow() == Hearing::Followed
    }

    /// Resolves once the issuer has told which policy there is, or has been found away.
    pub(crate) async fn heard(&self) {
        let mut hearing = self.hearing.subscribe();
        _ = hearing
            .wait_for(|hearing| *hearing != Hearing::Unknown)
            .await;
    }

    fn set_hearing(&self, hearing: Hearing) {
        self.hearing.send_replace(hearing);
        let is_followed = hearing == Hearing::Followed;
        metrics::gauge!(ISSUER_WATCHED).set(if is_followed { 1.0 } else { 0.0 });
    }

    /// Puts bundles in force for every one who follows.
    pub(crate) fn set_bundles(&self, bundles: TrustBundleSet) {
        let changed = self.bundles.send_if_modified(|old| {
            let changed = **old != bundles;
            if changed {
                *old = Arc::new(bundles);
            }
            changed
        });
        if changed {
            metrics::counter!(BUNDLE_UPDATES).increment(1);
        }
    }

    /// Replaces the bundle of one trust domain.
    pub(crate) fn set_bundle(&self, bundle: TrustBundle) {
        let others: Vec<_> = self
            .bundles
            .borrow()
            .iter()
            .filter(|old| old.trust_domain() != bundle.trust_domain())
            .map(|old| TrustBundle::clone(old))
            .collect();
        self.set_bundles(TrustBundleSet::new(others.into_iter().chain([bundle])));
    }

    /// Orders every identity to be renewed now.
    pub(crate) fn order_now(&self) {
        self.order.send_modify(|order| {
            let now = order.unwrap_or_default();
            *order = Some(RenewOrder {
                within: Duration::ZERO,
                local: now.local + 1,
                ..now
            });
        });
    }

    /// Puts a message in force. `own` is the trust domain of the bot identity: without its
    /// authorities the issuer could not be verified again, so a message that lacks them, or
    /// tells of a trust domain twice, changes nothing. A bundle of another trust domain that
    /// cannot be read is left out: its peers are refused, nobody else is concerned.
    fn accept(&self, own: &TrustDomain, message: WatchResponse) -> Result<(), String> {
        let mut bundles: Vec<TrustBundle> = Vec::with_capacity(message.trust_bundles.len());
        for wire in &message.trust_bundles {
            let bundle = match read_bundle(wire) {
                Ok(bundle) => bundle,
                Err(error) if wire.trust_domain == own.as_str() => return Err(error),
                Err(error) => {
                    tracing::warn!(error, "a federated trust bundle is left out");
                    continue;
                }
            };
            let name = bundle.trust_domain();
            if bundles.iter().any(|other| other.trust_domain() == name) {
                return Err(format!(
                    "the issuer's message has two trust bundles of {name}: it is refused, and the \
                     trust bundles stay as they are"
                ));
            }
            bundles.push(bundle);
        }
        let has_own = bundles
            .iter()
            .any(|bundle| bundle.trust_domain() == own && !bundle.x509_authorities().is_empty());
        if !has_own {
            return Err(format!(
                "the issuer's message has no authority of {own}, our own trust domain: it is \
                 refused, and the trust bundles stay as they are"
            ));
        }
        self.set_bundles(TrustBundleSet::new(bundles));
        self.order.send_if_modified(|order| {
            let new = RenewOrder {
                epoch: message.renew_epoch,
                within: crate::key::duration_of(message.renew_within).unwrap_or_default(),
                local: order.map_or(0, |order| order.local),
                policy: Some(message.policy_epoch),
                policy_within: crate::key::duration_of(message.policy_within).unwrap_or_default(),
                refusals: order.map_or(0, |order| order.refusals),
            };
            let changed =
                order.is_none_or(|old| (old.epoch, old.policy) != (new.epoch, new.policy));
            if changed {
                *order = Some(new);
            }
            changed
        });
        Ok(())
    }

    /// Follows the issuer for as long as the process lives.
    pub(crate) async fn follow(self: Arc<Self>, link: Arc<IssuerLink>, bot: Arc<IdentitySource>) {
        let mut backoff = Backoff::default();
        let mut identity = bot.subscribe();
        // What there is at first was granted to a process before this one.
        let mut followed = true;
        loop {
            let svid = wait_for_identity(&mut identity).await;
            let ended = self.follow_once(&link, &mut identity, &svid, &mut backoff, &mut followed);
            let Err(reason) = ended.await else {
                continue;
            };
            if reason.is_denial() && std::mem::replace(&mut followed, false) {
                // What was granted may be granted no longer: that is asked for at once.
                self.order.send_modify(|order| {
                    let now = order.get_or_insert_default();
                    now.refusals += 1;
                });
            }
            self.set_hearing(Hearing::Lost);
            let delay = backoff.next();
            tracing::warn!(
                %reason,
                retry_in_seconds = delay.as_secs_f64().round(),
                "not following the issuer's pushes"
            );
            tokio::time::sleep(delay).await;
        }
    }

    /// Follows one stream. `Ok`: the bot identity has changed, begin again under the new one.
    async fn follow_once(
        &self,
        link: &IssuerLink,
        identity: &mut watch::Receiver<Arc<identity::Identity>>,
        svid: &X509Svid,
        backoff: &mut Backoff,
        followed: &mut bool,
    ) -> Result<(), CallError> {
        let own = svid.id().trust_domain();
        let mut stream = link
            .call(|channel| async move {
                IssueServiceClient::new(channel)
                    .watch(WatchRequest {})
                    .await
            })
            .await?;
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => {
                        self.accept(&own, message).map_err(CallError::Unavailable)?;
                        *followed = true;
                        self.set_hearing(Hearing::Followed);
                        backoff.reset();
                    }
                    Ok(None) => {
                        return Err(CallError::Lost("the issuer ended the stream".to_owned()));
                    }
                    Err(status) => return Err(CallError::from(status)),
                },
                changed = identity.changed() => {
                    let now = identity.borrow().svid.as_ref().map(|svid| svid.serial().clone());
                    if changed.is_err() || now.as_ref() != Some(svid.serial()) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Which order an identity was obtained under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Obtained {
    /// `None`: the order was not known.
    pub(crate) epoch: Option<u64>,
    pub(crate) local: u64,
    /// The policy that it was granted under; `None`: not known.
    pub(crate) policy: Option<u64>,
    /// See [`RenewOrder::refusals`].
    pub(crate) refusals: u64,
}

impl Obtained {
    pub(crate) fn under(order: Option<RenewOrder>) -> Self {
        Self {
            epoch: order.map(|order| order.epoch),
            local: order.map_or(0, |order| order.local),
            policy: order.and_then(|order| order.policy),
            refusals: order.map_or(0, |order| order.refusals),
        }
    }

    /// Within which time to obtain it again because of `order`, if that is so. Policy that
    /// is another, whichever way its number went, may grant otherwise.
    pub(crate) fn renewal_within(&mut self, order: RenewOrder) -> Option<Duration> {
        if self.is_older_than(order) {
            return Some(order.within);
        }
        if order.refusals > self.refusals {
            return Some(Duration::ZERO);
        }
        let is_of_other_policy = self.is_of_other_policy(order);
        is_of_other_policy.then_some(order.policy_within)
    }

    /// Whether it was granted under another policy, or to a bot that may have nothing now.
    /// Where the policy was not known, this is it.
    pub(crate) fn is_of_other_policy(&mut self, order: RenewOrder) -> bool {
        let is_other = order.policy.is_some_and(|policy| {
            let before = *self.policy.get_or_insert(policy);
            before != policy
        });
        is_other || order.refusals > self.refusals
    }

    /// Whether `order` is a newer one. Where the order was not known, this is it.
    /// So it is when the number falls: the issuer was set back.
    pub(crate) fn is_older_than(&mut self, order: RenewOrder) -> bool {
        if order.local > self.local || self.epoch.is_some_and(|epoch| order.epoch > epoch) {
            return true;
        }
        self.epoch = Some(order.epoch);
        false
    }
}

/// The bot identity, once there is one.
async fn wait_for_identity(
    identity: &mut watch::Receiver<Arc<identity::Identity>>,
) -> Arc<X509Svid> {
    loop {
        let held = identity.borrow_and_update().svid.clone();
        if let Some(svid) = held {
            return svid;
        }
        if identity.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A trust bundle as it travels.
pub(crate) fn read_bundle(wire: &WireBundle) -> Result<TrustBundle, String> {
    let name = &wire.trust_domain;
    let trust_domain =
        TrustDomain::parse(name).map_err(|error| format!("trust bundle of `{name}`: {error}"))?;
    TrustBundle::from_spiffe_json(trust_domain, &wire.spiffe_bundle_json)
        .map_err(|error| format!("trust bundle of `{name}`: {error}"))
}

#[cfg(test)]
mod tests;
