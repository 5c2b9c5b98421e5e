//! How an agent becomes a bot, and stays one.
//!
//! **Join** exchanges evidence for a first certificate. A token makes one instance:
//! it is consumed in the transaction that records the join. An answer can get lost,
//! so until the token's end, and until that instance first renews, joining again
//! with the same key returns that instance again; with another key it is refused.
//!
//! **Renew** exchanges a certificate for its successor. Each carries a
//! generation. Whoever copies a bot's identity shares its generation with the
//! rightful holder; once one of the two has renewed, the other presents an old
//! one, and the instance is locked. Repeating a renewal with the same key returns
//! the same generation and is no sign of a copy; therefore a renewal must bring a
//! new key, else a copy could not be told from a repetition.
//!
//! **Join and issue** joins and issues as the bot that joined, in one transaction: a
//! refused join issues nothing, and a join whose SVIDs cannot be recorded has not
//! happened. Whoever only wants SVIDs needs no key for the bot: then a certificate is
//! made for a key that is thrown away at once, and the answer holds none.

pub mod limit;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::SpiffeId;
use prost::Message;
use proto::join::v1 as pb;
use subtle::ConstantTimeEq;

use crate::{
    access::{self, Caller, Denial, Refusal, Refused},
    audit::{Event, EventName},
    authority::{
        Authority, AuthorityError, CertSigner, CsrError, EcdsaP256Signer, Leaf, LeafTemplate,
        SubjectKey,
    },
    catalog::Catalog,
    issue::{self, Asker, Batch, Item, Outcome, attributes, remaining},
    resources::{Kind, LockTarget, Spec, TokenSecret},
    service::Issuer,
    store::{
        StoreError, Tx, audit, instances, instances::BotInstance, resources, tokens,
        tokens::StoredToken,
    },
};

/// Life of a bot certificate unless the operator says otherwise.
pub const DEFAULT_BOT_TTL: Duration = Duration::from_secs(3600);
/// How long an instance whose certificates have ended is still shown.
pub const INSTANCE_MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest life of the certificate of a bot without a key of its own.
const KEYLESS_TTL: Duration = Duration::from_secs(60);
/// Most items, and most SVIDs, of a call that joins, too: they are signed while others
/// wait to record.
pub const ISSUED_MAX: usize = 100;
/// The join method of this module.
const METHOD_TOKEN: &str = "token";
const HOSTNAME_MAX: usize = 255;
const VERSION_MAX: usize = 64;

/// What the agent says of itself: recorded, never used in a decision.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    hostname: String,
    version: String,
}

impl Agent {
    /// Cut to size, without control characters.
    pub fn new(info: Option<pb::AgentInfo>) -> Self {
        let tidy = |mut text: String, max: usize| {
            text.retain(|character| !character.is_control());
            text.truncate(text.floor_char_boundary(max));
            text
        };
        let info = info.unwrap_or_default();
        Self {
            hostname: tidy(info.hostname, HOSTNAME_MAX),
            version: tidy(info.version, VERSION_MAX),
        }
    }
}

/// A first certificate is asked for.
#[derive(Debug, Clone)]
pub struct TokenJoin {
    /// The presented secret.
    pub secret: TokenSecret,
    /// The key to certify, taken from the request.
    pub key: Result<SubjectKey, CsrError>,
    /// What the agent says of itself.
    pub agent: Agent,
    /// Where it calls from.
    pub remote: Option<SocketAddr>,
    /// Life of the certificate.
    pub ttl: Duration,
}

/// The next certificate is asked for.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The key to certify, taken from the request.
    pub key: Result<SubjectKey, CsrError>,
    /// What the agent says of itself.
    pub agent: Agent,
    /// Life of the certificate.
    pub ttl: Duration,
}

/// A bot certificate.
#[derive(Debug, Clone)]
pub struct BotGrant {
    /// The certificate.
    pub leaf: Leaf,
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// When to renew.
    pub renew_at: SystemTime,
    /// The instance as it is now.
    pub instance: BotInstance,
    /// Whether it was granted before, and the answer presumably lost.
    pub repeated: bool,
}

impl BotGrant {
    /// The bot, as it calls on a connection that was made with this certificate.
    pub fn caller(&self, remote: Option<SocketAddr>, connected: SystemTime) -> Caller {
        Caller {
            id: self.id.clone(),
            bot_name: self.instance.bot_name.clone(),
            instance_id: self.instance.instance_id.clone(),
            generation: self.instance.generation,
            serial: self.leaf.serial.clone(),
            not_after: self.leaf.validity.not_after,
            remote,
            connected,
            join: attributes::joined(&attributes::of_join(&self.instance.join_method, "")),
        }
    }
}

/// Joins by a token, or refuses; either is recorded when this returns.
#[tracing::instrument(name = "join", level = "debug", skip_all)]
pub async fn join_by_token(
    issuer: &Issuer,
    request: TokenJoin,
    now: SystemTime,
) -> Result<BotGrant, Refusal> {
    let (authority, request) = (issuer.keyring().x509().clone(), Arc::new(request));
    let decision = issuer
        .store
        .write::<_, StoreError, _>(move |tx| {
            let (authority, request) = (authority.clone(), request.clone());
            Box::pin(async move { join_within(tx, &authority, &request, now).await })
        })
        .await
        .unwrap_or_else(|error| Err(Refusal::Store(error)));
    count("issuer_joins_total", &decision);
    decision
}

/// What became of a join with SVIDs.
#[derive(Debug)]
pub struct JoinedAndIssued {
    /// The bot.
    pub bot: BotGrant,
    /// Whether the request came without a key for the bot: nobody can use its certificate.
    pub keyless: bool,
    /// One for each item.
    pub outcomes: Vec<Outcome>,
}

/// Joins, and issues as the bot that joined: both or neither, in one transaction.
#[tracing::instrument(name = "join", level = "debug", skip_all)]
pub async fn join_and_issue(
    issuer: &Issuer,
    mut request: TokenJoin,
    items: Vec<Result<Item, Refused>>,
    now: SystemTime,
) -> Result<JoinedAndIssued, Refusal> {
    let keyless = request.key == Err(CsrError::Absent);
    if keyless {
        let (key, _) = EcdsaP256Signer::generate().map_err(AuthorityError::from)?;
        request.key = Ok(SubjectKey::from_own_key(key.public_key_der()));
        request.ttl = request.ttl.min(KEYLESS_TTL);
    }
    let (request, at) = (Arc::new(request), issuer.clone());
    let done = issuer
        .store
        .write::<_, StoreError, _>(move |tx| {
            let (issuer, request, items) = (at.clone(), request.clone(), items.clone());
            Box::pin(async move {
                let keyring = issuer.keyring();
                let bot = match join_within(tx, keyring.x509(), &request, now).await? {
                    Ok(bot) => bot,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let caller = Arc::new(bot.caller(request.remote, now));
                let batch = Batch::new(&issuer, Asker::Bot(caller), items, now).at_most(ISSUED_MAX);
                let settled = issue::settle_within(tx, &batch, None).await?;
                Ok(Ok((bot, settled)))
            })
        })
        .await
        .unwrap_or_else(|error| Err(Refusal::Store(error)));
    count("issuer_joins_total", &done);
    let (bot, settled) = done?;
    settled.measure();
    Ok(JoinedAndIssued {
        bot,
        keyless,
        outcomes: settled.into_outcomes(),
    })
}

/// Joins inside a transaction, or refuses, and records it.
async fn join_within(
    tx: &mut Tx,
    authority: &Arc<Authority>,
    request: &TokenJoin,
    now: SystemTime,
) -> Result<Result<BotGrant, Refusal>, StoreError> {
    let decision = decide_join(tx, authority, request, now).await;
    record_join(tx, request, decision, now).await
}

async fn decide_join(
    tx: &mut Tx,
    authority: &Arc<Authority>,
    request: &TokenJoin,
    now: SystemTime,
) -> Result<BotGrant, Refusal> {
    let hash = request.secret.sha256();
    let token = tokens::read(tx.connection().await?, &hash).await?;
    // Looked up by hash, so that timing tells nothing of the secret; compared
    // once more in constant time, so that nothing hangs on how a database compares.
    let token = token
        .filter(|token| bool::from(token.hash.as_slice().ct_eq(&hash)))
        .ok_or_else(|| Refusal::denied(Denial::UnknownToken, "no such token"))?;
    let name = request.secret.public_name();
    let targets = access::lock_targets(&token.bot_name, None, name.as_str());
    let catalog = tx.catalog().await?;
    access::refuse_locked(&catalog, &targets, now, Denial::Locked)?;
    if let Some(used_at) = token.used_at {
        return match repeatable(tx, &token, request, now).await? {
            Some(instance) => repeat_join(tx, authority, instance, request, now).await,
            None => {
                let detail = format!("it was used at {}", crate::authority::rfc3339(used_at));
                Err(Refusal::denied(Denial::UsedToken, detail))
            }
        };
    }
    if token.expires <= now {
        let detail = format!("it expired at {}", crate::authority::rfc3339(token.expires));
        return Err(Refusal::denied(Denial::ExpiredToken, detail));
    }
    let ttl = bot_ttl(&catalog, &token.bot_name, request.ttl)?;
    let key = admissible(&request.key)?;
    let mut instance = BotInstance {
        instance_id: uuid::Uuid::new_v4().to_string(),
        bot_name: token.bot_name,
        generation: 1,
        key_sha256: key.sha256().to_vec(),
        joined: now,
        renewed: now,
        not_after: now,
        hostname: request.agent.hostname.clone(),
        agent_version: request.agent.version.clone(),
        join_method: METHOD_TOKEN.to_owned(),
        // The beginning of the secret's hash, by which a lock can name the token.
        join_token_name: name.to_string(),
        newest_seen: None,
    };
    let (id, leaf) = sign(authority, &mut instance, key, ttl, now)?;
    tokens::consume(tx.connection().await?, &hash, &instance.instance_id, now).await?;
    instances::add(tx, &instance).await?;
    access::forget_ended(tx, now - INSTANCE_MEMORY, now).await?;
    Ok(grant(leaf, id, instance, false, now))
}

/// The instance that this token made, if this is the same join again: before the
/// token's end, by the holder of the key that the first certificate was signed for
/// (the request is signed with it), while there is no second certificate.
async fn repeatable(
    tx: &mut Tx,
    token: &StoredToken,
    request: &TokenJoin,
    now: SystemTime,
) -> Result<Option<BotInstance>, StoreError> {
    let (Some(used_by), Ok(key)) = (&token.used_by, &request.key) else {
        return Ok(None);
    };
    if token.expires <= now {
        return Ok(None);
    }
    let bot = resources::read(tx.connection().await?, Kind::Bot, &token.bot_name).await?;
    let instance = instances::read(tx.connection().await?, &token.bot_name, used_by).await?;
    let target = LockTarget::BotInstance(used_by.clone());
    let lock = tx.catalog().await?.lock_on(&[target], now)?;
    Ok(instance.filter(|instance| {
        bot.is_some()
            && instance.generation == 1
            && lock.is_none()
            && instance.key_sha256 == key.sha256()
    }))
}

/// The same instance and generation, a new certificate.
async fn repeat_join(
    tx: &mut Tx,
    authority: &Arc<Authority>,
    mut instance: BotInstance,
    request: &TokenJoin,
    now: SystemTime,
) -> Result<BotGrant, Refusal> {
    let key = admissible(&request.key)?;
    let catalog = tx.catalog().await?;
    let ttl = bot_ttl(&catalog, &instance.bot_name, request.ttl)?;
    instance.hostname.clone_from(&request.agent.hostname);
    instance.agent_version.clone_from(&request.agent.version);
    let (id, leaf) = sign(authority, &mut instance, key, ttl, now)?;
    instances::renewed(tx, &instance).await?;
    Ok(grant(leaf, id, instance, true, now))
}

async fn record_join(
    tx: &mut Tx,
    request: &TokenJoin,
    decision: Result<BotGrant, Refusal>,
    now: SystemTime,
) -> Result<Result<BotGrant, Refusal>, StoreError> {
    let event = match &decision {
        Ok(grant) => granted(EventName::BotJoin, grant),
        Err(Refusal::Denied { denial, detail }) => {
            Event::denial(EventName::BotJoin, denial.as_str()).with("error", detail.as_str())
        }
        Err(Refusal::Store(error)) => return Err(error.clone()),
    };
    let event = event
        .with("join_method", METHOD_TOKEN)
        // The beginning of the hash: it tells tokens apart and opens nothing.
        .with("token", request.secret.public_name().as_str())
        .with("hostname", request.agent.hostname.as_str())
        .with("agent_version", request.agent.version.as_str())
        .with_remote(request.remote);
    audit::append(tx, &event, now).await?;
    Ok(decision)
}

/// Renews, or refuses; either is recorded when this returns.
#[tracing::instrument(name = "renew", level = "debug", skip_all)]
pub async fn renew(
    issuer: &Issuer,
    request: Renewal,
    now: SystemTime,
) -> Result<BotGrant, Refusal> {
    let (authority, request) = (issuer.keyring().x509().clone(), Arc::new(request));
    let decision = issuer
        .store
        .write::<_, StoreError, _>(move |tx| {
            let (authority, request) = (authority.clone(), request.clone());
            Box::pin(async move {
                let decision = decide_renewal(tx, &authority, &request, now).await;
                record_renewal(tx, &request, decision, now).await
            })
        })
        .await
        .unwrap_or_else(|error| Err(Refusal::Store(error)));
    count("issuer_renewals_total", &decision);
    decision
}

async fn decide_renewal(
    tx: &mut Tx,
    authority: &Arc<Authority>,
    request: &Renewal,
    now: SystemTime,
) -> Result<BotGrant, Refusal> {
    let catalog = tx.catalog().await?;
    let admitted = access::admit(&catalog, &request.caller, now)?;
    let mut instance = BotInstance::clone(&admitted);
    if access::is_first_seen(&request.caller, &instance) {
        instances::newest_seen(tx, &instance.instance_id, now).await?;
        instance.newest_seen = Some(now);
    }
    let ttl = bot_ttl(&catalog, &instance.bot_name, request.ttl)?;
    let key = admissible(&request.key)?;
    let generation = next_generation(request.caller.generation, &instance, key)?;
    let repeated = generation == instance.generation;
    if !repeated {
        instance.newest_seen = None;
    }
    instance.generation = generation;
    instance.key_sha256 = key.sha256().to_vec();
    instance.hostname.clone_from(&request.agent.hostname);
    instance.agent_version.clone_from(&request.agent.version);
    let (id, leaf) = sign(authority, &mut instance, key, ttl, now)?;
    instances::renewed(tx, &instance).await?;
    Ok(grant(leaf, id, instance, repeated, now))
}

/// The generation that a renewal gets which presents `presented`.
fn next_generation(
    presented: u64,
    instance: &BotInstance,
    key: &SubjectKey,
) -> Result<u64, Refusal> {
    let newest = instance.generation;
    let told = access::told_generations(presented, newest);
    let same_key = instance.key_sha256 == key.sha256();
    if presented == newest && same_key {
        let detail = "a renewal needs a new key pair: this request has that of the certificate that it renews";
        return Err(Refusal::denied(Denial::InvalidCsr, detail));
    }
    if presented == newest {
        return Ok(newest + 1);
    }
    if presented > newest {
        return Err(Refusal::denied(Denial::UnknownGeneration, told));
    }
    if presented + 1 == newest && same_key {
        return Ok(newest);
    }
    Err(Refusal::denied(Denial::CopiedIdentity, told))
}

async fn record_renewal(
    tx: &mut Tx,
    request: &Renewal,
    decision: Result<BotGrant, Refusal>,
    now: SystemTime,
) -> Result<Result<BotGrant, Refusal>, StoreError> {
    let caller = &request.caller;
    let event = match &decision {
        Ok(grant) => granted(EventName::BotRenew, grant),
        Err(Refusal::Denied { denial, detail }) => {
            Event::denial(EventName::BotRenew, denial.as_str()).with("error", detail.as_str())
        }
        Err(Refusal::Store(error)) => return Err(error.clone()),
    };
    let mut event = event
        .with("bot_name", caller.bot_name.as_str())
        .with("bot_instance_id", caller.instance_id.as_str())
        .with("presented_generation", caller.generation)
        .with_remote(caller.remote);
    if let Ok(key) = &request.key {
        event = event.with("public_key_sha256", hex::encode(key.sha256()));
    }
    audit::append(tx, &event, now).await?;
    if let Err(Refusal::Denied {
        denial: Denial::CopiedIdentity,
        detail,
    }) = &decision
    {
        access::lock_copied(tx, caller, detail, now).await?;
    }
    Ok(decision)
}

/// Life of the bot's certificates: as it is configured, or shorter if the bot says so.
fn bot_ttl(catalog: &Catalog, bot_name: &str, ttl: Duration) -> Result<Duration, Refusal> {
    let bot = catalog.bot(bot_name)?;
    match bot.as_ref().map(|bot| &bot.spec) {
        Some(Spec::Bot(bot)) => Ok(bot.max_session_ttl.map_or(ttl, |most| ttl.min(most))),
        _ => {
            let detail = format!("there is no bot {bot_name}");
            Err(Refusal::denied(Denial::UnknownBot, detail))
        }
    }
}

fn admissible(key: &Result<SubjectKey, CsrError>) -> Result<&SubjectKey, Refusal> {
    key.as_ref()
        .map_err(|error| Refusal::denied(Denial::InvalidCsr, error.to_string()))
}

/// Signs the instance's certificate and notes its end.
fn sign(
    authority: &Authority,
    instance: &mut BotInstance,
    key: &SubjectKey,
    ttl: Duration,
    now: SystemTime,
) -> Result<(SpiffeId, Leaf), AuthorityError> {
    let path = format!("/bot/{}/{}", instance.bot_name, instance.instance_id);
    let id = SpiffeId::new(authority.trust_domain(), &path)?;
    let attributes = pb::JoinAttributes {
        bot_name: instance.bot_name.clone(),
        instance_id: instance.instance_id.clone(),
        generation: instance.generation,
        join_method: instance.join_method.clone(),
        // The name of an ephemeral token is its secret.
        join_token_name: String::new(),
        attributes: Some(attributes::of_join(&instance.join_method, "")),
    };
    let leaf = authority.sign_leaf(&LeafTemplate {
        join_attributes: Some(attributes.encode_to_vec()),
        ..LeafTemplate::new(&id, key, authority.validity(now, ttl)?)
    })?;
    instance.renewed = now;
    instance.not_after = leaf.validity.not_after;
    Ok((id, leaf))
}

fn grant(
    leaf: Leaf,
    id: SpiffeId,
    instance: BotInstance,
    repeated: bool,
    now: SystemTime,
) -> BotGrant {
    BotGrant {
        renew_at: now + remaining(leaf.validity.not_after, now) / 2,
        leaf,
        id,
        instance,
        repeated,
    }
}

fn granted(name: EventName, grant: &BotGrant) -> Event {
    let event = match grant.repeated {
        true => Event::success(name).with("repeated", true),
        false => Event::success(name),
    };
    event
        .with("spiffe_id", grant.id.as_str())
        .with("bot_name", grant.instance.bot_name.as_str())
        .with("bot_instance_id", grant.instance.instance_id.as_str())
        .with("generation", grant.instance.generation)
        .with("serial_number", grant.leaf.serial.to_string())
        .with("public_key_sha256", hex::encode(&grant.instance.key_sha256))
        .with_time("not_after", grant.leaf.validity.not_after)
}

fn count<T>(metric: &'static str, decision: &Result<T, Refusal>) {
    let result = match decision {
        Ok(_) => "granted",
        Err(Refusal::Denied { denial, .. }) => denial.as_str(),
        Err(Refusal::Store(_)) => "store_unavailable",
    };
    metrics::counter!(metric, "result" => result).increment(1);
}

#[cfg(test)]
mod tests;
