//! The bot identity: what the agent is to the issuer.
//!
//! Joined once, renewed for ever. A renewal keeps its new key *before* it asks for
//! a certificate, and asks with that key until there is an answer: the issuer takes
//! the repetition for the same renewal, where a second key would look like a copy of
//! the identity. So it is with a join: until there is an answer that can be used, it is
//! repeated with the key that it began with. An expired identity is replaced by joining
//! anew, if there is a token.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{IdentitySource, X509Svid};
use proto::join::v1::{RenewRequest, RenewResponse, join_service_client::JoinServiceClient};
use tokio::sync::watch;

use crate::{
    configuration::{Issuer, Onboarding},
    join::{JoinError, JoinKeys, agent_info, expired_on_arrival, join, stored},
    key::{Key, KeyError},
    link::{CallError, IssuerLink},
    metrics::{BOT_EXPIRY, RENEWALS, result, timestamp},
    schedule::{Backoff, Schedule},
    state::{IdentityState, publish, rfc3339},
    storage::{BotStorage, PendingKey, StorageError, Stored},
    trust::{Obtained, RenewOrder, Trust},
};

/// Name of the bot identity in metrics and logs.
const NAME: &str = "bot";

/// Keeps the bot identity. See the module.
#[derive(Debug)]
pub(crate) struct Bot {
    pub(crate) issuer: Issuer,
    pub(crate) onboarding: watch::Receiver<Onboarding>,
    pub(crate) storage: Arc<BotStorage>,
    pub(crate) source: Arc<IdentitySource>,
    pub(crate) link: Arc<IssuerLink>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) state: watch::Sender<IdentityState>,
}

impl Bot {
    /// Runs for as long as the process lives. It returns only if the very first
    /// identity is refused for good.
    pub(crate) async fn run(mut self, loaded: Option<Stored>) -> JoinError {
        let mut starting = true;
        let mut held = loaded.map(|mut loaded| {
            // An order that came before the first message was kept is one to follow.
            loaded.state.renew_epoch.get_or_insert(0);
            loaded
        });
        loop {
            let stored = match held.take().filter(|held| !has_expired(held)) {
                Some(stored) => stored,
                None => match self.join(starting).await {
                    Ok(stored) => stored,
                    Err(error) => return error,
                },
            };
            starting = false;
            self.keep(stored).await;
        }
    }

    /// Joins, however long it takes; gives up only on a definitive refusal at the start.
    async fn join(&mut self, starting: bool) -> Result<Stored, JoinError> {
        let mut backoff = Backoff::default();
        let mut keys = JoinKeys::new(self.storage.clone());
        loop {
            let onboarding = self.onboarding.borrow_and_update().clone();
            let joined = join(&self.link, &self.issuer.trust, &onboarding, &mut keys).await;
            count_attempt(joined.is_ok());
            let error = match joined {
                Ok(stored) => {
                    let state = &stored.state;
                    tracing::info!(
                        id = %stored.svid.id(),
                        bot = state.bot_name,
                        instance = state.instance_id,
                        not_after = rfc3339(stored.svid.not_after()),
                        "joined"
                    );
                    self.save(&stored).await;
                    return Ok(stored);
                }
                Err(error) if starting && error.is_definitive() => return Err(error),
                Err(error) => error,
            };
            let delay = if error.is_definitive() {
                backoff.next_slow()
            } else {
                backoff.next()
            };
            tracing::warn!(
                %error,
                retry_in_seconds = delay.as_secs_f64().round(),
                "not joined"
            );
            publish(
                &self.state,
                IdentityState::waiting(format!("the agent has not joined: {error}")),
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                Ok(()) = self.onboarding.changed() => {}
            }
        }
    }

    /// Keeps an identity fresh until it expires.
    async fn keep(&self, mut held: Stored) {
        let mut schedule = Schedule::empty(SystemTime::now());
        let mut order = self.trust.order();
        let mut bundles = self.trust.bundles();
        let mut obtained = Obtained {
            epoch: held.state.renew_epoch,
            ..Obtained::under(*order.borrow())
        };
        // Bundles of other trust domains, which the issuer has told since the start, stay.
        if bundles.borrow().is_empty() {
            self.trust.set_bundles(held.bundles.clone());
        } else {
            held.bundles.iter().for_each(|bundle| {
                self.trust.set_bundle(identity::TrustBundle::clone(bundle));
            });
        }
        bundles.mark_unchanged();
        self.put_in_force(&held, &mut schedule);
        if held.next_key.is_some() {
            // A renewal whose answer was lost: until it is repeated, what is held may be superseded.
            schedule.hasten(Duration::ZERO, SystemTime::now());
        }
        loop {
            let now = SystemTime::now();
            if schedule.has_expired(now) {
                return self.expire(&held.svid);
            }
            if schedule.is_due(now) {
                let under = *order.borrow_and_update();
                let svid = held.svid.clone();
                let renewed = {
                    let renewal = self.renew(&mut held, under);
                    tokio::pin!(renewal);
                    // Not cut off at its expiry: an answer that is on its way is worth a token.
                    tokio::select! {
                        renewed = &mut renewal => renewed,
                        () = schedule.expiry() => {
                            self.expire(&svid);
                            renewal.await
                        }
                    }
                };
                match renewed {
                    Ok(()) => {
                        obtained = Obtained::under(under);
                        self.put_in_force(&held, &mut schedule);
                    }
                    Err(error) => {
                        count_attempt(false);
                        let delay = schedule.failed(SystemTime::now(), error.is_refusal());
                        tracing::warn!(
                            %error,
                            retry_in_seconds = delay.as_secs_f64().round(),
                            not_after = rfc3339(held.svid.not_after()),
                            "bot identity not renewed"
                        );
                        if !schedule.has_expired(SystemTime::now()) {
                            let state = IdentityState {
                                held: true,
                                reason: Some(format!("the bot identity is not renewed: {error}")),
                            };
                            publish(&self.state, state);
                        }
                    }
                }
                continue;
            }
            tokio::select! {
                () = schedule.wait(now) => {}
                Ok(()) = bundles.changed() => {
                    held.bundles = bundles.borrow_and_update().as_ref().clone();
                    self.source.set_bundles(held.bundles.clone());
                    self.save(&held).await;
                }
                Ok(()) = order.changed() => {
                    let Some(order) = *order.borrow_and_update() else { continue };
                    if obtained.is_older_than(order) {
                        schedule.hasten(order.within, SystemTime::now());
                    } else if held.state.renew_epoch != obtained.epoch {
                        held.state.renew_epoch = obtained.epoch;
                        self.save(&held).await;
                    }
                }
            }
        }
    }

    async fn renew(&self, held: &mut Stored, under: Option<RenewOrder>) -> Result<(), RenewError> {
        let key = match &held.next_key {
            Some(PendingKey(pem)) => Key::from_pem(pem).map_err(RenewError::key)?,
            None => {
                let key = Key::generate().map_err(RenewError::key)?;
                let mut pending = held.clone();
                pending.next_key = Some(PendingKey(key.pem()));
                // Only what is on the disk may be asked with: forgotten by a restart, it
                // would leave an identity that looks like a copy.
                self.write(&pending).await?;
                *held = pending;
                key
            }
        };
        let request = RenewRequest {
            csr_der: key.csr(),
            agent: Some(agent_info()),
        };
        let epoch = under.map(|order| order.epoch).or(held.state.renew_epoch);
        let trust = &self.trust;
        let renewed = self
            .link
            .renew(
                |channel| {
                    let request = request.clone();
                    async move { JoinServiceClient::new(channel).renew(request).await }
                },
                async |answer: RenewResponse| {
                    let mut new = stored(&key, answer.certificate, answer.trust_bundle, epoch)
                        .map_err(RenewError::Answer)?;
                    let now = SystemTime::now();
                    if new.svid.not_after() <= now {
                        let error = expired_on_arrival(new.svid.not_after(), now);
                        return Err(RenewError::Answer(error));
                    }
                    new.bundles
                        .iter()
                        .for_each(|own| trust.set_bundle(identity::TrustBundle::clone(own)));
                    new.bundles = trust.bundles().borrow().as_ref().clone();
                    // What is not on the disk is not put in force: once it is used, its
                    // predecessor, with which a restart would begin, looks like a copy. Until
                    // then it may repeat this renewal.
                    self.write(&new).await?;
                    self.source.set(new.svid.clone(), new.bundles.clone());
                    Ok(new)
                },
            )
            .await??;
        tracing::info!(
            id = %renewed.svid.id(),
            generation = renewed.state.generation,
            not_after = rfc3339(renewed.svid.not_after()),
            "bot identity renewed"
        );
        count_attempt(true);
        if held.state.generation == 1 {
            // The issuer repeats no join any more.
            self.forget_join_key().await;
        }
        *held = renewed;
        Ok(())
    }

    fn put_in_force(&self, held: &Stored, schedule: &mut Schedule) {
        let bundles = self.trust.bundles().borrow().as_ref().clone();
        self.source.set(held.svid.clone(), bundles);
        schedule.renewed(held.life(), SystemTime::now());
        metrics::gauge!(BOT_EXPIRY).set(timestamp(held.svid.not_after()));
        publish(&self.state, IdentityState::held());
    }

    fn expire(&self, svid: &X509Svid) {
        let at = rfc3339(svid.not_after());
        tracing::error!(id = %svid.id(), not_after = at, "the bot identity has expired");
        self.source.clear_svid();
        let reason = format!("the bot identity expired at {at}");
        publish(&self.state, IdentityState::waiting(reason));
    }

    async fn save(&self, stored: &Stored) {
        if let Err(error) = self.write(stored).await {
            tracing::error!(%error, "the bot identity is not kept: a restart needs a new token");
        }
    }

    async fn forget_join_key(&self) {
        let storage = self.storage.clone();
        _ = tokio::task::spawn_blocking(move || storage.forget_join_key()).await;
    }

    /// Writes to the storage, off the runtime.
    async fn write(&self, stored: &Stored) -> Result<(), StorageError> {
        let (storage, stored) = (self.storage.clone(), stored.clone());
        let written = tokio::task::spawn_blocking(move || storage.save(&stored)).await;
        written.unwrap_or_else(|error| Err(StorageError::Unfinished(error.to_string())))
    }
}

fn has_expired(stored: &Stored) -> bool {
    let expired = stored.svid.not_after() <= SystemTime::now();
    if expired {
        tracing::warn!(
            id = %stored.svid.id(),
            not_after = rfc3339(stored.svid.not_after()),
            "the stored bot identity has expired: joining anew"
        );
    }
    expired
}

fn count_attempt(succeeded: bool) {
    metrics::counter!(RENEWALS, "identity" => NAME, "result" => result(succeeded)).increment(1);
}

/// Why the bot identity is not renewed.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("{0}")]
    Key(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the issuer's answer cannot be used: {0}")]
    Answer(String),
}

impl RenewError {
    fn key(error: KeyError) -> Self {
        Self::Key(error.to_string())
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_refusal())
    }
}
