//! Resources as they travel and are kept: `tbot.admin.v1.Resource`.

mod check;
mod rules;
mod sigstore_policy;
mod workload_identity;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use ::config::Path;
use identity::{SpiffeId, TrustBundle, TrustDomain};
use policy::attributes::MAX_ENTRIES;
use prost::Message;
use proto::admin::v1 as pb;

use self::check::Check;
use super::{
    BOT_TTL_CAP, BotSpec, LabelSelector, LockSpec, LockTarget, Metadata, Resource, ResourceName,
    RoleSpec, Spec, SpiffeFederationSpec, SpiffePath, TokenSecret, TokenSpec, WorkloadIdentitySpec,
    check_label,
};

/// Most bytes of an encoded resource: several of them fit a message.
pub const MAX_ENCODED: usize = 256 * 1024;
/// Most labels of a resource.
const MAX_LABELS: usize = 64;
/// Most roles of a bot.
const MAX_ROLES: usize = 256;
/// Most values of a trait.
const MAX_TRAIT_VALUES: usize = 64;
/// Most bytes of a text for people.
const MAX_DESCRIPTION: usize = 1024;

/// Reads and validates a resource. This is the only door: YAML, the admin API
/// and the store all come through it. Every mistake is told.
pub fn from_wire(resource: pb::Resource) -> Result<Resource, InvalidResource> {
    let mut check = Check::default();
    let encoded = resource.encoded_len();
    if encoded > MAX_ENCODED {
        let message = format!("it has {encoded} bytes; at most {MAX_ENCODED} are accepted");
        check.refuse(&Path::root(), message);
        return Err(check.into_error());
    }
    let root = Path::root();
    let (at_metadata, at_spec) = (root.key("metadata"), root.key("spec"));
    let Some(metadata) = resource.metadata else {
        check.refuse(&at_metadata, "it has no metadata");
        return Err(check.into_error());
    };
    let Some(spec) = resource.spec else {
        check.refuse(&at_spec, "it has no spec");
        return Err(check.into_error());
    };
    let ends = matches!(
        spec,
        pb::resource::Spec::Token(_) | pb::resource::Spec::Lock(_)
    );
    let expires = expires(&mut check, &at_metadata, &metadata, ends);
    labels(&mut check, &at_metadata, &metadata);
    let description = &metadata.description;
    check.text(&at_metadata.key("description"), description);
    let at_name = at_metadata.key("name");
    let name = match &spec {
        // These know better what their names mean.
        pb::resource::Spec::Token(_) | pb::resource::Spec::SpiffeFederation(_) => None,
        _ => check.take(&at_name, ResourceName::parse(&metadata.name)),
    };
    let read = match spec {
        pb::resource::Spec::Token(spec) => token(&mut check, &at_name, &metadata.name, &spec),
        pb::resource::Spec::SpiffeFederation(spec) => {
            federation(&mut check, &at_name, &metadata.name, spec)
        }
        pb::resource::Spec::Bot(spec) => name.zip(bot(&mut check, &at_spec, spec)),
        pb::resource::Spec::Role(spec) => name.zip(role(&mut check, &at_spec, spec)),
        pb::resource::Spec::Lock(spec) => name.zip(lock(&mut check, &at_spec, spec)),
        pb::resource::Spec::WorkloadIdentity(spec) => {
            name.zip(workload_identity::read(&mut check, &at_spec, spec).map(Spec::from))
        }
        pb::resource::Spec::SigstorePolicy(spec) => {
            name.zip(sigstore_policy::read(&mut check, &at_spec, spec))
        }
    };
    match read {
        Some((name, spec)) if check.is_clean() => Ok(Resource {
            metadata: Metadata {
                name,
                labels: metadata.labels.into_iter().collect::<BTreeMap<_, _>>(),
                revision: metadata.revision,
                expires,
                description: metadata.description,
            },
            spec,
        }),
        _ => Err(check.into_error()),
    }
}

/// As [`from_wire`], and as the issuer of `trust_domain` accepts it.
pub fn from_wire_in(
    trust_domain: &TrustDomain,
    resource: pb::Resource,
) -> Result<Resource, InvalidResource> {
    let resource = from_wire(resource)?;
    let mut check = Check::default();
    let at = Path::root().key("spec");
    match &resource.spec {
        Spec::WorkloadIdentity(spec) => {
            workload_identity::check_in(&mut check, &at, trust_domain, spec);
        }
        Spec::SpiffeFederation(federation) if federation.bundle.trust_domain() == trust_domain => {
            let message = format!("{trust_domain} is this issuer's own trust domain");
            check.refuse(&Path::root().key("metadata").key("name"), message);
        }
        Spec::Lock(lock) => lock_in(&mut check, &at.key("target"), trust_domain, &lock.target),
        _ => {}
    }
    match check.is_clean() {
        true => Ok(resource),
        false => Err(check.into_error()),
    }
}

/// A workload identity with this path and nothing else.
pub(super) fn workload_identity_at(path: &str) -> Result<WorkloadIdentitySpec, InvalidResource> {
    let spec = pb::WorkloadIdentitySpec {
        spiffe_path: path.to_owned(),
        ..Default::default()
    };
    let mut check = Check::default();
    let read = workload_identity::read(&mut check, &Path::root().key("spec"), spec);
    match read {
        Some(spec) if check.is_clean() => Ok(spec),
        _ => Err(check.into_error()),
    }
}

fn expires(
    check: &mut Check,
    at: &Path,
    metadata: &pb::Metadata,
    ends: bool,
) -> Option<SystemTime> {
    let timestamp = metadata.expires.as_ref()?;
    let at = at.key("expires");
    if !ends {
        check.refuse(&at, "only tokens and locks expire: remove it");
    }
    let moment = moment(timestamp);
    if moment.is_none() {
        check.refuse(&at, "a time from 1970 to 9999 is expected");
    }
    // As it is written.
    moment.map(whole_second)
}

fn labels(check: &mut Check, at: &Path, metadata: &pb::Metadata) {
    let at = at.key("labels");
    check.at_most(&at, MAX_LABELS, metadata.labels.len());
    let sorted: BTreeMap<_, _> = metadata.labels.iter().collect();
    for (key, value) in sorted {
        check.take(&at.key(key.clone()), check_label(key, value));
    }
}

fn token(
    check: &mut Check,
    at_name: &Path,
    name: &str,
    token: &pb::TokenSpec,
) -> Option<(ResourceName, Spec)> {
    let at = Path::root().key("spec");
    if token.join_method != "token" {
        let message = format!(
            "the join method {:?} is not known: write token",
            token.join_method
        );
        check.refuse(&at.key("join_method"), message);
    }
    let bot_name = check.take(&at.key("bot_name"), ResourceName::parse(&token.bot_name));
    let secret = check.take(at_name, TokenSecret::parse(name))?;
    let public = secret.public_name();
    let spec = Spec::Token(TokenSpec {
        bot_name: bot_name?,
        secret: Some(secret),
    });
    Some((public, spec))
}

fn federation(
    check: &mut Check,
    at_name: &Path,
    name: &str,
    spec: pb::SpiffeFederationSpec,
) -> Option<(ResourceName, Spec)> {
    let trust_domain = check.take(at_name, TrustDomain::parse(name))?;
    let bundle_json = spec.static_bundle_json;
    let bundle = TrustBundle::from_spiffe_json(trust_domain.clone(), bundle_json.as_bytes());
    let at = Path::root().key("spec").key("bundle_source");
    let bundle = check.take(&at.key("static").key("bundle"), bundle)?;
    let spec = Spec::SpiffeFederation(SpiffeFederationSpec {
        bundle,
        bundle_json,
    });
    Some((ResourceName::of_trust_domain(&trust_domain), spec))
}

fn bot(check: &mut Check, at: &Path, bot: pb::BotSpec) -> Option<Spec> {
    let at_roles = at.key("roles");
    check.at_most(&at_roles, MAX_ROLES, bot.roles.len());
    let mut roles = Vec::with_capacity(bot.roles.len());
    for (index, name) in bot.roles.iter().enumerate() {
        let name = check.take(&at_roles.index(index), ResourceName::parse(name));
        roles.extend(name.filter(|name| !roles.contains(name)));
    }
    let at_traits = at.key("traits");
    // As `user.traits` counts them.
    let entries: usize = bot.traits.iter().map(|one| 1 + one.values.len()).sum();
    if entries > MAX_ENTRIES {
        let message =
            format!("at most {MAX_ENTRIES} names and values together are accepted, not {entries}");
        check.refuse(&at_traits, message);
    }
    let mut traits = BTreeMap::new();
    for (index, one) in bot.traits.into_iter().enumerate() {
        let at = at_traits.index(index);
        check.take(&at.key("name"), check_label(&one.name, ""));
        let at_values = at.key("values");
        check.at_most(&at_values, MAX_TRAIT_VALUES, one.values.len());
        for (index, value) in one.values.iter().enumerate() {
            check.take(&at_values.index(index), check_label("trait", value));
        }
        if traits.contains_key(&one.name) {
            check.refuse(
                &at.key("name"),
                format!("trait {:?} is given twice", one.name),
            );
        }
        traits.insert(one.name, one.values);
    }
    let max_session_ttl = check.life(
        &at.key("max_session_ttl"),
        bot.max_session_ttl.as_ref(),
        BOT_TTL_CAP,
    );
    Some(Spec::Bot(BotSpec {
        roles,
        traits,
        max_session_ttl,
    }))
}

fn role(check: &mut Check, at: &Path, role: pb::RoleSpec) -> Option<Spec> {
    let mut selector = |list: &'static str, selectors: Vec<pb::LabelSelector>| {
        let keys = selectors
            .into_iter()
            .map(|selector| (selector.key, selector.values));
        let at = at.key(list).key("workload_identity_labels");
        check.take(&at, LabelSelector::new(keys))
    };
    let allow = selector("allow", role.workload_identity_labels);
    let deny = selector("deny", role.deny_workload_identity_labels);
    Some(Spec::Role(RoleSpec {
        workload_identity_labels: allow?,
        deny_workload_identity_labels: deny?,
    }))
}

fn lock(check: &mut Check, at: &Path, lock: pb::LockSpec) -> Option<Spec> {
    use pb::lock_spec::Target;
    check.text(&at.key("message"), &lock.message);
    let at = at.key("target");
    let Some(target) = lock.target else {
        let message = "whom it is on is missing: one of bot, bot_instance_id, join_token, role, workload_identity, spiffe_id";
        check.refuse(&at, message);
        return None;
    };
    let mut name =
        |key: &'static str, text: &str| check.take(&at.key(key), ResourceName::parse(text));
    let target = match target {
        Target::Bot(text) => LockTarget::Bot(name("bot", &text)?),
        Target::JoinToken(text) => {
            let public = TokenSecret::parse_public_name(&text);
            LockTarget::JoinToken(check.take(&at.key("join_token"), public)?)
        }
        Target::Role(text) => LockTarget::Role(name("role", &text)?),
        Target::WorkloadIdentity(text) => {
            LockTarget::WorkloadIdentity(name("workload_identity", &text)?)
        }
        Target::BotInstanceId(text) => {
            let id = uuid::Uuid::parse_str(&text).ok();
            if id.is_none() {
                let message = format!("{text:?} is not a UUID: `issuer bot instances` shows them");
                check.refuse(&at.key("bot_instance_id"), message);
            }
            LockTarget::BotInstance(id?.to_string())
        }
        Target::SpiffeId(text) => {
            check.take(&at.key("spiffe_id"), SpiffeId::parse(&text))?;
            LockTarget::SpiffeId(text)
        }
    };
    Some(Spec::Lock(LockSpec {
        target,
        message: lock.message,
    }))
}

/// A lock on an id that no workload of this trust domain can have would lock nobody.
fn lock_in(check: &mut Check, at: &Path, trust_domain: &TrustDomain, target: &LockTarget) {
    let LockTarget::SpiffeId(id) = target else {
        return;
    };
    let at = at.key("spiffe_id");
    let path = id
        .strip_prefix(trust_domain.id().as_str())
        .filter(|path| path.starts_with('/'));
    let Some(path) = path else {
        let message = format!("{id} is no workload's of {trust_domain}: nobody would be locked");
        check.refuse(&at, message);
        return;
    };
    if let Err(error) = SpiffePath::parse(path) {
        let message = format!("{error}: to lock a bot, name it as bot or bot_instance_id");
        check.refuse(&at, message);
    }
}

/// What is wrong, and what was probably meant.
fn told(message: &str, suggestion: Option<&str>) -> String {
    match suggestion {
        Some(suggestion) => format!("{message}; did you mean `{suggestion}`?"),
        None => message.to_owned(),
    }
}

/// A duration that is not negative. (The conversions and the `Display` of
/// `prost_types` panic on the outermost values; what came over a wire does not
/// meet them.)
pub fn duration(wire: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(wire.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(wire.seconds).ok()?, nanos))
}

/// A moment from 1970 to 9999.
pub fn moment(wire: &prost_types::Timestamp) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = duration(&prost_types::Duration {
        seconds: wire.seconds,
        nanos: wire.nanos,
    })?;
    (since.as_secs() < YEAR_10000).then(|| SystemTime::UNIX_EPOCH + since)
}

fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.unwrap_or_default().as_secs())
}

/// A positive duration of whole seconds, at most `cap`.
pub fn whole_seconds(wire: &prost_types::Duration, cap: Duration) -> Option<Duration> {
    let duration = duration(wire)?;
    (duration.subsec_nanos() == 0 && !duration.is_zero() && duration <= cap).then_some(duration)
}

/// Of whole seconds.
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Writes a resource. A token's secret is not in it: its name is the public one.
pub fn to_wire(resource: &Resource) -> pb::Resource {
    let metadata = &resource.metadata;
    let spec = match &resource.spec {
        Spec::Bot(bot) => pb::resource::Spec::Bot(pb::BotSpec {
            roles: bot.roles.iter().map(ToString::to_string).collect(),
            traits: bot
                .traits
                .iter()
                .map(|(name, values)| pb::Trait {
                    name: name.clone(),
                    values: values.clone(),
                })
                .collect(),
            max_session_ttl: bot.max_session_ttl.map(duration_to_wire),
        }),
        Spec::Role(role) => pb::resource::Spec::Role(pb::RoleSpec {
            workload_identity_labels: selector_to_wire(&role.workload_identity_labels),
            deny_workload_identity_labels: selector_to_wire(&role.deny_workload_identity_labels),
        }),
        Spec::Token(token) => pb::resource::Spec::Token(pb::TokenSpec {
            join_method: "token".to_owned(),
            bot_name: token.bot_name.to_string(),
        }),
        Spec::WorkloadIdentity(spec) => {
            pb::resource::Spec::WorkloadIdentity(workload_identity::write(spec))
        }
        Spec::Lock(lock) => pb::resource::Spec::Lock(pb::LockSpec {
            target: Some(target_to_wire(&lock.target)),
            message: lock.message.clone(),
        }),
        Spec::SpiffeFederation(federation) => {
            pb::resource::Spec::SpiffeFederation(pb::SpiffeFederationSpec {
                static_bundle_json: federation.bundle_json.clone(),
            })
        }
        Spec::SigstorePolicy(policy) => pb::resource::Spec::SigstorePolicy(policy.written.clone()),
    };
    pb::Resource {
        metadata: Some(pb::Metadata {
            name: metadata.name.to_string(),
            labels: metadata.labels.clone().into_iter().collect(),
            revision: metadata.revision,
            expires: metadata.expires.map(prost_types::Timestamp::from),
            description: metadata.description.clone(),
        }),
        spec: Some(spec),
    }
}

/// Writes a label selector.
pub fn selector_to_wire(selector: &LabelSelector) -> Vec<pb::LabelSelector> {
    selector
        .iter()
        .map(|(key, values)| pb::LabelSelector {
            key: key.clone(),
            values: values.clone(),
        })
        .collect()
}

fn target_to_wire(target: &LockTarget) -> pb::lock_spec::Target {
    use pb::lock_spec::Target;
    let value = target.value().to_owned();
    match target {
        LockTarget::Bot(_) => Target::Bot(value),
        LockTarget::BotInstance(_) => Target::BotInstanceId(value),
        LockTarget::JoinToken(_) => Target::JoinToken(value),
        LockTarget::Role(_) => Target::Role(value),
        LockTarget::WorkloadIdentity(_) => Target::WorkloadIdentity(value),
        LockTarget::SpiffeId(_) => Target::SpiffeId(value),
    }
}

/// Everything that is wrong with a resource. `Display`: each mistake after its
/// place, on one line, with `; ` between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidResource {
    mistakes: Vec<FieldMistake>,
}

impl InvalidResource {
    /// Each, in the order in which they were found.
    pub fn mistakes(&self) -> &[FieldMistake] {
        &self.mistakes
    }
}

impl fmt::Display for InvalidResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{mistake}")?;
        }
        Ok(())
    }
}

impl Error for InvalidResource {}

/// One mistake of a resource. `Display`: `spec.spiffe.id: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMistake {
    /// Which field, by its place in YAML.
    pub path: Path,
    /// Line and column (from 1) inside the field's text, if it is a place in it.
    pub inner: Option<(usize, usize)>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for FieldMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            inner,
            message,
        } = self;
        if path != &Path::root() {
            write!(f, "{path}: ")?;
        }
        match inner {
            Some((1, column)) => write!(f, "column {column}: {message}"),
            Some((line, column)) => write!(f, "line {line}, column {column}: {message}"),
            None => f.write_str(message),
        }
    }
}
