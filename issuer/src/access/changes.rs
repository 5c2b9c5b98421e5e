//! Changes of resources by an operator: all of a request or none, each recorded.

use std::time::{Duration, SystemTime};

use crate::{
    audit::{Change, Event, EventName},
    resources::{
        BotSpec, Kind, LockTarget, Metadata, Resource, ResourceName, Spec, TOKEN_TTL_CAP,
        TokenSecret, TokenSpec,
    },
    store::{
        Failure, StoreError, Tx, audit, instances, resources, settings, tokens, tokens::StoredToken,
    },
};

/// What became of an applied resource.
#[derive(Debug, Clone)]
pub struct Applied {
    /// As the issuer holds it now.
    pub resource: Resource,
    /// What happened; `None`: it was so already.
    pub change: Option<Change>,
    /// As it was before, if it was and was different.
    pub previous: Option<Resource>,
    /// What is no mistake, but may not be meant.
    pub warnings: Vec<String>,
}

/// Creates or replaces resources. An error undoes all of them.
pub async fn apply(
    tx: &mut Tx,
    wanted: Vec<Resource>,
    operator: &str,
    now: SystemTime,
) -> Result<Vec<Applied>, ChangeError> {
    let mut applied = Vec::with_capacity(wanted.len());
    for resource in wanted {
        applied.push(apply_one(tx, resource, operator, now).await?);
    }
    // After all are in place, so that their order does not matter.
    for done in &mut applied {
        done.warnings = check_references(tx, &done.resource).await?;
    }
    Ok(applied)
}

async fn apply_one(
    tx: &mut Tx,
    mut resource: Resource,
    operator: &str,
    now: SystemTime,
) -> Result<Applied, ChangeError> {
    let kind = resource.kind();
    let name = resource.metadata.name.to_string();
    let token = match &resource.spec {
        Spec::Token(token) => Some(check_token(tx, &resource, token, now).await?),
        _ => None,
    };
    let old = match &token {
        Some((_, old)) => old.clone(),
        None => resources::read(tx.connection().await?, kind, &name).await?,
    };
    let stored = old.as_ref().map_or(0, |old| old.metadata.revision);
    let expected = resource.metadata.revision;
    if expected != 0 && expected != stored {
        return Err(ChangeError::Revision {
            kind,
            name,
            expected,
            stored,
        });
    }
    if let Spec::Token(token) = &mut resource.spec {
        token.secret = None;
    }
    if let Some(old) = &old
        && old.says_the_same(&resource)
    {
        return Ok(Applied {
            resource: old.clone(),
            change: None,
            previous: None,
            warnings: Vec::new(),
        });
    }
    if let Spec::Lock(_) = &resource.spec
        && resource.metadata.expires.is_some_and(|end| end <= now)
    {
        let why = "metadata.expires is in the past";
        return Err(ChangeError::Invalid(format!("lock {name}: {why}")));
    }
    resource.metadata.revision = stored + 1;
    match &token {
        Some((hash, _)) => put_token(tx, &resource, hash, now).await?,
        None => resources::put(tx, &resource).await?,
    }
    let change = match stored {
        0 => Change::Create,
        _ => Change::Update,
    };
    record(tx, &resource, change, operator, now).await?;
    Ok(Applied {
        resource,
        change: Some(change),
        previous: old,
        warnings: Vec::new(),
    })
}

type CheckedToken = ([u8; 32], Option<Resource>);

async fn check_token(
    tx: &mut Tx,
    resource: &Resource,
    token: &TokenSpec,
    now: SystemTime,
) -> Result<CheckedToken, ChangeError> {
    let name = &resource.metadata.name;
    let invalid = |why: &str| ChangeError::Invalid(format!("token {name}: {why}"));
    let Some(secret) = &token.secret else {
        return Err(invalid("its secret is missing"));
    };
    let Some(expires) = resource.metadata.expires else {
        return Err(invalid(
            "metadata.expires is missing: a token ends, at the latest in 24h",
        ));
    };
    if expires <= now {
        return Err(invalid("metadata.expires is in the past"));
    }
    if expires > now + TOKEN_TTL_CAP {
        return Err(invalid("metadata.expires is more than 24h away"));
    }
    let hash = secret.sha256();
    let old = tokens::read(tx.connection().await?, &hash).await?;
    if old.as_ref().is_some_and(|old| old.used_at.is_some()) {
        return Err(invalid("it has been used: make another"));
    }
    let old = match old {
        Some(old) => Some(
            old.to_resource()
                .map_err(|error| StoreError::Damaged(error.to_string()))?,
        ),
        None => None,
    };
    Ok((hash, old))
}

async fn put_token(
    tx: &mut Tx,
    resource: &Resource,
    hash: &[u8; 32],
    now: SystemTime,
) -> Result<(), ChangeError> {
    let (Spec::Token(token), Some(expires)) = (&resource.spec, resource.metadata.expires) else {
        return Err(ChangeError::Invalid("not a token".to_owned()));
    };
    let stored = StoredToken {
        hash: hash.to_vec(),
        name: resource.metadata.name.to_string(),
        bot_name: token.bot_name.to_string(),
        labels: resource.metadata.labels.clone(),
        description: resource.metadata.description.clone(),
        revision: resource.metadata.revision,
        expires,
        used_at: None,
        used_by: None,
    };
    tokens::put(tx.connection().await?, &stored, now).await?;
    // Long enough after their end that a late use still finds its reason.
    let forgotten = now - Duration::from_secs(7 * 24 * 3600);
    Ok(tokens::remove_ended(tx.connection().await?, forgotten).await?)
}

/// Refuses what cannot work without what it refers to; what can is only told.
async fn check_references(tx: &mut Tx, resource: &Resource) -> Result<Vec<String>, ChangeError> {
    let mut warnings = Vec::new();
    let name = &resource.metadata.name;
    match &resource.spec {
        Spec::Bot(bot) => {
            for role in &bot.roles {
                let found =
                    resources::read(tx.connection().await?, Kind::Role, role.as_str()).await?;
                if found.is_none() {
                    return Err(ChangeError::Missing(format!(
                        "bot {name} is to hold role {role}, which does not exist: apply the role first, or together with it"
                    )));
                }
            }
        }
        Spec::Token(token) => {
            let bot = token.bot_name.as_str();
            let found = resources::read(tx.connection().await?, Kind::Bot, bot).await?;
            if found.is_none() {
                return Err(ChangeError::Missing(format!(
                    "token {name} is for bot {bot}, which does not exist: apply the bot first, or together with it"
                )));
            }
        }
        Spec::WorkloadIdentity(spec) => {
            for policy in spec.rules.signature_policies() {
                let found = resources::read(tx.connection().await?, Kind::SigstorePolicy, policy);
                if found.await?.is_none() {
                    warnings.push(format!(
                        "workload_identity {name} asks for the sigstore_policy {policy:?}, which does not exist (yet): it is not satisfied before it does"
                    ));
                }
            }
            for other in &spec.federates_with {
                let found = resources::read(
                    tx.connection().await?,
                    Kind::SpiffeFederation,
                    other.as_str(),
                );
                if found.await?.is_none() {
                    warnings.push(format!(
                        "workload_identity {name} federates with {other}, for which there is no spiffe_federation yet: nothing is issued before there is"
                    ));
                }
            }
        }
        Spec::Lock(lock) => {
            if !target_exists(tx, &lock.target).await? {
                warnings.push(format!(
                    "lock {name} is on {}, which does not exist (yet)",
                    lock.target
                ));
            }
        }
        Spec::Role(_) | Spec::SpiffeFederation(_) | Spec::SigstorePolicy(_) => {}
    }
    Ok(warnings)
}

async fn target_exists(tx: &mut Tx, target: &LockTarget) -> Result<bool, StoreError> {
    let kind = match target {
        LockTarget::Bot(_) => Kind::Bot,
        LockTarget::Role(_) => Kind::Role,
        LockTarget::WorkloadIdentity(_) => Kind::WorkloadIdentity,
        LockTarget::BotInstance(id) => return Ok(tx.catalog().await?.instance(id).is_some()),
        // Of these there is no list.
        LockTarget::JoinToken(_) | LockTarget::SpiffeId(_) => return Ok(true),
    };
    let found = resources::read(tx.connection().await?, kind, target.value()).await?;
    Ok(found.is_some())
}

async fn record(
    tx: &mut Tx,
    resource: &Resource,
    change: Change,
    operator: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    let name = resource.metadata.name.as_str();
    let mut event = Event::success(EventName::Resource(resource.kind(), change))
        .with("name", name)
        .with("revision", resource.metadata.revision)
        .with("user", operator);
    match &resource.spec {
        Spec::Bot(bot) => {
            let roles: Vec<_> = bot.roles.iter().map(ResourceName::as_str).collect();
            event = event.with("bot_name", name).with("roles", roles);
        }
        Spec::Token(token) => event = event.with("bot_name", token.bot_name.as_str()),
        Spec::WorkloadIdentity(spec) => event = event.with("spiffe_path", spec.path.source()),
        Spec::Lock(lock) => {
            event = event
                .with("target", lock.target.to_string())
                .with("lock_reason", lock.message.as_str());
        }
        Spec::Role(_) | Spec::SpiffeFederation(_) | Spec::SigstorePolicy(_) => {}
    }
    if let Some(expires) = resource.metadata.expires {
        event = event.with_time("expires", expires);
    }
    audit::append(tx, &event, now).await?;
    Ok(())
}

/// Removes a resource, if it is at `revision` (0: at whatever it is). With a bot go
/// its tokens and instances; a role that a bot holds stays.
pub async fn delete(
    tx: &mut Tx,
    kind: Kind,
    name: &str,
    revision: u64,
    operator: &str,
    now: SystemTime,
) -> Result<(), ChangeError> {
    if revision != 0 {
        check_revision(tx, kind, name, revision).await?;
    }
    if kind == Kind::Role {
        refuse_role_in_use(tx, name).await?;
    }
    let found = match kind {
        Kind::Token => tokens::remove(tx.connection().await?, name).await?,
        _ => resources::remove(tx, kind, name).await?,
    };
    if !found {
        return Err(ChangeError::NotFound {
            kind,
            name: name.to_owned(),
        });
    }
    let mut event = Event::success(EventName::Resource(kind, Change::Delete))
        .with("name", name)
        .with("user", operator);
    if kind == Kind::Bot {
        tokens::remove_of_bot(tx.connection().await?, name).await?;
        let joined = instances::list(tx.connection().await?, name).await?;
        for instance in joined {
            let id = &instance.instance_id;
            super::remove_locks(tx, name, id, operator, now).await?;
            instances::remove(tx, id).await?;
        }
        event = event.with("bot_name", name);
    }
    audit::append(tx, &event, now).await?;
    Ok(())
}

async fn check_revision(
    tx: &mut Tx,
    kind: Kind,
    name: &str,
    expected: u64,
) -> Result<(), ChangeError> {
    let connection = tx.connection().await?;
    let stored = match kind {
        Kind::Token => {
            let found = tokens::list(connection, name).await?;
            found.first().map(|token| token.revision)
        }
        _ => {
            let found = resources::read(connection, kind, name).await?;
            found.map(|resource| resource.metadata.revision)
        }
    };
    match stored {
        Some(stored) if stored != expected => Err(ChangeError::Revision {
            kind,
            name: name.to_owned(),
            expected,
            stored,
        }),
        _ => Ok(()),
    }
}

/// What was to be changed, for the record of a refusal.
#[derive(Debug, Clone)]
pub enum Attempt {
    /// Resources were to be applied: `kind/name` of each, without secrets.
    Apply(Vec<String>),
    /// This one was to be deleted.
    Delete(Kind, String),
}

/// Records that an operator's change was refused (nothing of it was done).
pub async fn record_refusal(
    tx: &mut Tx,
    attempt: Attempt,
    error: &str,
    operator: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    let event = match attempt {
        Attempt::Apply(resources) => {
            Event::denial(EventName::Apply, "refused").with("resources", resources)
        }
        Attempt::Delete(kind, name) => {
            let name = match kind {
                // It may be the secret.
                Kind::Token => String::new(),
                _ => name.chars().take(128).collect(),
            };
            Event::denial(EventName::Resource(kind, Change::Delete), "refused").with("name", name)
        }
    };
    let event = event.with("error", error).with("user", operator);
    audit::append(tx, &event, now).await?;
    Ok(())
}

async fn refuse_role_in_use(tx: &mut Tx, name: &str) -> Result<(), ChangeError> {
    let bots = resources::list(tx.connection().await?, Kind::Bot).await?;
    let holders: Vec<_> = bots
        .iter()
        .filter(|bot| match &bot.spec {
            Spec::Bot(spec) => spec.roles.iter().any(|role| role.as_str() == name),
            _ => false,
        })
        .map(|bot| bot.metadata.name.as_str())
        .collect();
    if holders.is_empty() {
        return Ok(());
    }
    Err(ChangeError::InUse(format!(
        "role {name} is held by {}: take it from them first",
        holders.join(", ")
    )))
}

/// Makes a bot, or adds roles to it, and a token for it.
pub async fn add_bot(
    tx: &mut Tx,
    name: ResourceName,
    roles: Vec<ResourceName>,
    secret: TokenSecret,
    token_ttl: Duration,
    operator: &str,
    now: SystemTime,
) -> Result<(Resource, SystemTime), ChangeError> {
    let mut bot = resources::read(tx.connection().await?, Kind::Bot, name.as_str())
        .await?
        .unwrap_or_else(|| Resource {
            metadata: metadata(name.clone(), None),
            spec: Spec::Bot(BotSpec::default()),
        });
    if let Spec::Bot(spec) = &mut bot.spec {
        for role in roles {
            if !spec.roles.contains(&role) {
                spec.roles.push(role);
            }
        }
    }
    let expires = now + token_ttl;
    let token = Resource {
        metadata: metadata(secret.public_name(), Some(expires)),
        spec: Spec::Token(TokenSpec {
            bot_name: name,
            secret: Some(secret),
        }),
    };
    let mut applied = apply(tx, vec![bot, token], operator, now).await?;
    Ok((applied.swap_remove(0).resource, expires))
}

fn metadata(name: ResourceName, expires: Option<SystemTime>) -> Metadata {
    Metadata {
        expires,
        ..Metadata::named(name)
    }
}

/// Orders every agent to renew, spread over `within`; the new epoch.
pub async fn order_renewal(
    tx: &mut Tx,
    within: Duration,
    operator: &str,
    now: SystemTime,
) -> Result<u64, StoreError> {
    let epoch = settings::read_number(tx.connection().await?, settings::RENEW_EPOCH).await? + 1;
    settings::write(tx, settings::RENEW_EPOCH, &epoch.to_string()).await?;
    let window = within.as_millis().to_string();
    settings::write(tx, settings::RENEW_WITHIN, &window).await?;
    let event = Event::success(EventName::RenewOrder)
        .with("renew_epoch", epoch)
        .with("within_seconds", within.as_secs())
        .with("user", operator);
    audit::append(tx, &event, now).await?;
    Ok(epoch)
}

/// How applying ended without a change.
#[derive(Debug)]
pub enum NotApplied {
    /// None was wanted; this is what it would have been.
    DryRun(Vec<Applied>),
    /// It was refused, or the store failed.
    Refused(ChangeError),
}

impl From<ChangeError> for NotApplied {
    fn from(error: ChangeError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for NotApplied {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl Failure for NotApplied {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::DryRun(_) => None,
            Self::Refused(error) => error.store_error(),
        }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// What was asked for is not right.
    #[error("{0}")]
    Invalid(String),
    /// It refers to what is not there.
    #[error("{0}")]
    Missing(String),
    /// It is not locked.
    #[error("{0} is no locked instance: `issuer bot instances` lists them")]
    NotLocked(String),
    /// It is needed by something else.
    #[error("{0}")]
    InUse(String),
    /// It is not there.
    #[error("there is no {}: `issuer get {kind}` lists them", told(*.kind, .name))]
    NotFound {
        /// What kind.
        kind: Kind,
        /// Which one.
        name: String,
    },
    /// It has changed since it was read.
    #[error(
        "{kind} {name} is at revision {stored}, not {expected}: read it again and repeat the change"
    )]
    Revision {
        /// What kind.
        kind: Kind,
        /// Which one.
        name: String,
        /// What the change was made on.
        expected: u64,
        /// What is stored; 0: nothing.
        stored: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure for ChangeError {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What was meant, without the secret that a token's name may be.
fn told(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Token => {
            "token of that name (it is listed by a name that is not its secret)".to_owned()
        }
        _ => format!("{kind} {name:?}"),
    }
}
