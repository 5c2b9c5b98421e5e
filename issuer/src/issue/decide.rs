//! The decision: one function that reads in order.
//!
//! `locks → resource → role → signatures → rules → templates → key → bounds`. It is pure: it reads
//! one catalog and one keyring, so it decides on one state of the world, and it does
//! not sign. The same function answers an agent, is repeated by the writer if the
//! world has changed meanwhile, and explains itself to an operator; what it decides
//! cannot differ between the three.
//!
//! Everything that a template rendered is checked again here as if a stranger had
//! sent it, because a stranger may have: attributes are text from outside.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use policy::{Attributes, RuleRef, Value, WorkloadReads};

use super::{
    Approved, Ask, Asker, Key, Wanted, attributes,
    render::{self, Rendered},
};
use crate::{
    access::{self, Denial, Refused},
    authority::{AuthorityError, Keyring, Validity},
    catalog::Catalog,
    resources::{
        BotSpec, LabelSelector, LockTarget, Resource, ResourceName, RoleSpec, Spec, SvidKind,
        TtlBounds, WorkloadIdentitySpec,
    },
    store::{StoreError, instances::BotInstance},
};

/// What was decided on one [`Ask`], with all that led to it.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What may be signed, or why nothing may.
    pub verdict: Result<Approved, Refused>,
    /// The instance that asked, as far as there is one.
    pub instance: Option<Arc<BotInstance>>,
    /// The workload identity, if the decision came to know it.
    pub resource: Option<Arc<Resource>>,
    /// The role that lets the bot have it, or that denies it.
    pub role: Option<ResourceName>,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
    /// What was known of who asks.
    pub attributes: Attributes,
    /// What of the workload it can depend on. Nothing, unless a role lets the bot have
    /// the workload identity: its rules are nobody else's business.
    pub reads: WorkloadReads,
}

/// Follows a decision, step by step. `()` does not.
pub trait Trace {
    /// Tells of a step that was passed, with what can be told of it, or that refused.
    fn step(&mut self, step: Step, outcome: Result<impl FnOnce() -> String, &Refused>);
}

impl Trace for () {
    fn step(&mut self, _: Step, _: Result<impl FnOnce() -> String, &Refused>) {}
}

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The bot and its instance may ask at all.
    Caller,
    /// There is such a workload identity, and no lock on it.
    Resource,
    /// A role of the bot lets it have this one, and none denies it.
    Role,
    /// The rules of the workload identity let this caller have it.
    Rules,
    /// Path, SANs, subject, hint and claims come to something valid.
    Templates,
    /// The trust domains that it federates with are known.
    Federation,
    /// Kind of document, audiences and key can be granted.
    Document,
    /// The life.
    Bounds,
}

impl Step {
    /// As shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Resource => "resource",
            Self::Role => "role",
            Self::Rules => "rules",
            Self::Templates => "templates",
            Self::Federation => "federation",
            Self::Document => "document",
            Self::Bounds => "bounds",
        }
    }
}

/// Decides on one SVID.
pub fn decide(
    catalog: &Catalog,
    keyring: &Keyring,
    asker: &Asker,
    ask: &Ask,
    now: SystemTime,
    trace: &mut impl Trace,
) -> Decision {
    Standing::of(catalog, asker, now).decide(catalog, keyring, ask, now, trace)
}

/// What a decision needs of who asks: the same for everything that is asked at once.
pub(super) struct Standing {
    instance: Option<Arc<BotInstance>>,
    /// `join.*` and `user.*`.
    attributes: Attributes,
    admitted: Result<Admitted, Refused>,
}

/// A bot that may ask, and its roles.
struct Admitted {
    told: String,
    roles: Vec<(ResourceName, Arc<Resource>)>,
    /// What is lacking of the roles that it names.
    missing: Vec<ResourceName>,
}

impl Standing {
    /// Looks up who asks.
    pub(super) fn of(catalog: &Catalog, asker: &Asker, now: SystemTime) -> Self {
        let mut standing = Self {
            instance: None,
            attributes: Attributes::new(),
            admitted: Err(Refused::new(Denial::UnknownBot, "")),
        };
        standing.admitted = standing.admit(catalog, asker, now);
        standing
    }

    fn admit(
        &mut self,
        catalog: &Catalog,
        asker: &Asker,
        now: SystemTime,
    ) -> Result<Admitted, Refused> {
        let bot_name = asker.bot_name();
        let caller = match asker {
            Asker::Bot(caller) => Some(caller.as_ref()),
            Asker::Supposed { attributes, .. } => {
                self.attributes = attributes.clone();
                None
            }
        };
        let bot = resource(catalog.bot(bot_name))?;
        if let Some(bot) = &bot
            && let Spec::Bot(spec) = &bot.spec
        {
            let verified = attributes::verified(caller, &bot.metadata, spec)?;
            self.attributes.merge(verified);
        }
        if let Some(caller) = caller {
            self.instance = catalog.instance(&caller.instance_id);
            let instance = access::admit(catalog, caller, now)?;
            access::refuse_superseded(caller, &instance)?;
        } else {
            self.suppose(catalog, bot_name, now)?;
        }
        let Some(Spec::Bot(bot)) = bot.as_ref().map(|bot| &bot.spec) else {
            let detail = format!("there is no bot {bot_name}");
            return Err(Refused::new(Denial::UnknownBot, detail));
        };
        self.roles_of(catalog, bot_name, bot)
    }

    /// Who is only thought of may be an instance that there is, and have joined by a token:
    /// their locks count as for who asks.
    fn suppose(
        &mut self,
        catalog: &Catalog,
        bot_name: &str,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let text = |path: &str| match self.attributes.get(path) {
            Some(Value::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let instance_id = text("user.bot_instance_id");
        self.instance = instance_id
            .and_then(|id| catalog.instance(id))
            .filter(|instance| instance.bot_name == bot_name);
        let token = match &self.instance {
            Some(instance) => &instance.join_token_name,
            None => text("join.meta.join_token_name").unwrap_or_default(),
        };
        let targets = access::lock_targets(bot_name, instance_id, token);
        access::refuse_locked(catalog, &targets, now, Denial::Locked)
    }

    fn roles_of(
        &self,
        catalog: &Catalog,
        bot_name: &str,
        bot: &BotSpec,
    ) -> Result<Admitted, Refused> {
        let mut roles = Vec::with_capacity(bot.roles.len());
        let mut missing = Vec::new();
        for name in &bot.roles {
            match resource(catalog.role(name.as_str()))? {
                Some(role) => roles.push((name.clone(), role)),
                None => missing.push(name.clone()),
            }
        }
        Ok(Admitted {
            told: format!("bot {bot_name} may ask"),
            roles,
            missing,
        })
    }

    /// The label selectors of the roles: a workload identity that none of them selects
    /// needs no decision. `None`: nothing may be had at all.
    pub(super) fn allowing(&self) -> Option<impl Iterator<Item = &LabelSelector>> {
        let admitted = self.admitted.as_ref().ok()?;
        Some(
            role_specs(admitted)
                .map(|(_, role)| &role.workload_identity_labels)
                .filter(|selector| !selector.is_empty()),
        )
    }

    /// Why who asks may not ask at all.
    pub(super) fn refused(&self) -> Option<&Refused> {
        self.admitted.as_ref().err()
    }

    /// The instance, if its newest certificate is presented for the first time.
    pub(super) fn first_seen(&self, asker: &Asker) -> Option<&BotInstance> {
        let (Asker::Bot(caller), Some(instance)) = (asker, &self.instance) else {
            return None;
        };
        let is_first = self.admitted.is_ok() && access::is_first_seen(caller, instance);
        is_first.then_some(instance)
    }

    /// Decides on one of the things that are asked.
    pub(super) fn decide(
        &self,
        catalog: &Catalog,
        keyring: &Keyring,
        ask: &Ask,
        now: SystemTime,
        trace: &mut impl Trace,
    ) -> Decision {
        let mut attributes = self.attributes.clone();
        attributes.merge(ask.workload.as_ref().clone());
        let mut deciding = Deciding {
            catalog,
            keyring,
            ask,
            now,
            trace,
            decision: Decision {
                verdict: Err(Refused::new(Denial::NoRole, "")),
                instance: self.instance.clone(),
                resource: None,
                role: None,
                rule: None,
                attributes,
                reads: WorkloadReads::default(),
            },
        };
        deciding.decision.verdict = deciding.decide(&self.admitted);
        deciding.decision
    }
}

fn role_specs(admitted: &Admitted) -> impl Iterator<Item = (&ResourceName, &RoleSpec)> {
    admitted
        .roles
        .iter()
        .filter_map(|(name, role)| match &role.spec {
            Spec::Role(role) => Some((name, role)),
            _ => None,
        })
}

/// A decision under way.
struct Deciding<'a, T> {
    catalog: &'a Catalog,
    keyring: &'a Keyring,
    ask: &'a Ask,
    now: SystemTime,
    trace: &'a mut T,
    decision: Decision,
}

impl<T: Trace> Deciding<'_, T> {
    fn decide(&mut self, admitted: &Result<Admitted, Refused>) -> Result<Approved, Refused> {
        let caller = admitted.as_ref().map_err(Refused::clone);
        let told = |admitted: &&Admitted| admitted.told.clone();
        let admitted = self.step(Step::Caller, caller, told)?;
        let resource = self.resource();
        let found = |found: &Arc<Resource>| {
            let metadata = &found.metadata;
            format!(
                "workload_identity {}, revision {}",
                metadata.name, metadata.revision
            )
        };
        let resource = self.step(Step::Resource, resource, found)?;
        self.decision.resource = Some(resource.clone());
        let Spec::WorkloadIdentity(spec) = &resource.spec else {
            return Err(unknown("of another kind"));
        };
        let role = self.role(admitted, &resource);
        let role = self.step(Step::Role, role, |role| format!("role {role} allows it"))?;
        self.decision.role = Some(role);
        self.decision.reads = spec.workload_reads();
        self.signatures(spec);
        let rules = self.rules(spec);
        self.step(Step::Rules, rules, String::clone)?;
        let rendered = self.templates(spec);
        let rendered = self.step(Step::Templates, rendered, |made| made.id.to_string())?;
        let federation = self.federation(spec);
        self.step(Step::Federation, federation, |()| String::new())?;
        let document = check_document(self.keyring, &self.ask.wanted);
        self.step(Step::Document, document, |()| String::new())?;
        let bounds = self.bounds(spec);
        let told = |(_, ttl): &(Validity, Duration)| format!("{} s", ttl.as_secs());
        let (validity, ttl) = self.step(Step::Bounds, bounds, told)?;
        Ok(self.approve(&resource, spec, rendered, validity, ttl))
    }

    fn refuse_locked(&self, target: LockTarget) -> Result<(), Refused> {
        access::refuse_locked(self.catalog, &[target], self.now, Denial::LockedIdentity)
    }

    fn step<O>(
        &mut self,
        step: Step,
        outcome: Result<O, Refused>,
        told: impl FnOnce(&O) -> String,
    ) -> Result<O, Refused> {
        let made = outcome.as_ref().map(|made| || told(made));
        self.trace.step(step, made);
        outcome
    }

    fn resource(&self) -> Result<Arc<Resource>, Refused> {
        // What is no name is not looked up; it is recorded in its shortened form.
        let name = ResourceName::parse(&self.ask.workload_identity)
            .map_err(|error| unknown(&error.to_string()))?;
        let found = resource(self.catalog.workload_identity(name.as_str()))?
            .ok_or_else(|| unknown(&format!("there is no workload_identity {name}")))?;
        self.refuse_locked(LockTarget::WorkloadIdentity(name))?;
        Ok(found)
    }

    /// The first role that allows, and is not locked, unless any role denies.
    fn role(&mut self, admitted: &Admitted, resource: &Resource) -> Result<ResourceName, Refused> {
        let labels = &resource.metadata.labels;
        let denies =
            |(_, role): &(_, &RoleSpec)| role.deny_workload_identity_labels.matches(labels);
        if let Some((name, _)) = role_specs(admitted).find(denies) {
            self.decision.role = Some(name.clone());
            let detail = format!("role {name} denies workload identities with these labels");
            return Err(Refused::new(Denial::RoleDenies, detail));
        }
        let mut locked = None;
        for (name, role) in role_specs(admitted) {
            if !role.workload_identity_labels.matches(labels) {
                continue;
            }
            match self.refuse_locked(LockTarget::Role(name.clone())) {
                Ok(()) => return Ok(name.clone()),
                Err(refused) => locked = Some(refused),
            }
        }
        if let Some(locked) = locked {
            return Err(locked);
        }
        let list = |names: &mut dyn Iterator<Item = &ResourceName>| {
            names
                .map(ResourceName::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let roles = list(&mut admitted.roles.iter().map(|(name, _)| name));
        let mut detail = format!("none of the bot's roles [{roles}] selects it");
        if !admitted.missing.is_empty() {
            let missing = list(&mut admitted.missing.iter());
            detail.push_str(&format!("; it also names [{missing}], which do not exist"));
        }
        Err(Refused::new(Denial::NoRole, detail))
    }

    /// Has what is signed for the workload's image judged by the policies that the rules
    /// ask for. What cannot be judged satisfies none.
    fn signatures(&mut self, spec: &WorkloadIdentitySpec) {
        for name in spec.rules.signature_policies() {
            let verdict = match self.catalog.sigstore_policy(name) {
                Ok(Some(policy)) => match &policy.spec {
                    Spec::SigstorePolicy(policy) => {
                        let attributes = &self.decision.attributes;
                        policy.judge.verdict(attributes, &self.ask.signatures)
                    }
                    _ => Err("it is of another kind".to_owned()),
                },
                Ok(None) => Err(format!("there is no sigstore_policy {name:?}")),
                Err(error) => Err(error.to_string()),
            };
            self.decision.attributes.set_signature_policy(name, verdict);
        }
    }

    fn rules(&mut self, spec: &WorkloadIdentitySpec) -> Result<String, Refused> {
        let decided = spec.rules.decide(&self.decision.attributes);
        self.decision.rule = decided.rule;
        let told = match &self.decision.rule {
            Some(rule) => format!("{rule}: {}", decided.reason),
            None => decided.reason,
        };
        match (decided.allowed, &self.decision.rule) {
            (true, _) => Ok(told),
            (false, Some(_)) => Err(Refused::new(Denial::RuleDenies, told)),
            (false, None) => Err(Refused::new(Denial::NoRule, told)),
        }
    }

    fn templates(&self, spec: &WorkloadIdentitySpec) -> Result<Rendered, Refused> {
        let kind = self.ask.wanted.kind();
        let trust_domain = self.keyring.trust_domain();
        let rendered = render::render(spec, kind, trust_domain, &self.decision.attributes)?;
        self.refuse_locked(LockTarget::SpiffeId(rendered.id.to_string()))?;
        Ok(rendered)
    }

    fn federation(&self, spec: &WorkloadIdentitySpec) -> Result<(), Refused> {
        for trust_domain in &spec.federates_with {
            if resource(self.catalog.federation(trust_domain.as_str()))?.is_none() {
                let detail = format!("there is no spiffe_federation {trust_domain}");
                return Err(Refused::new(Denial::UnknownFederation, detail));
            }
        }
        Ok(())
    }

    fn bounds(&self, spec: &WorkloadIdentitySpec) -> Result<(Validity, Duration), Refused> {
        let kind = self.ask.wanted.kind();
        let ttl = bounded_ttl(self.ask.ttl.as_ref(), spec.ttl_bounds(kind))?;
        let validity = match kind {
            SvidKind::X509 => self.keyring.validity(self.now, ttl),
            SvidKind::Jwt => self.keyring.jwt_validity(spec.jwt_algorithm, self.now, ttl),
            SvidKind::Wit => self.keyring.wit_validity(self.now, ttl),
        };
        let validity = validity
            .map_err(|error: AuthorityError| Refused::new(Denial::Authority, error.to_string()))?;
        Ok((validity, remaining(validity.not_after, self.now)))
    }

    fn approve(
        &self,
        resource: &Resource,
        spec: &WorkloadIdentitySpec,
        rendered: Rendered,
        validity: Validity,
        ttl: Duration,
    ) -> Approved {
        Approved {
            workload_identity: resource.metadata.name.clone(),
            revision: resource.metadata.revision,
            kind: self.ask.wanted.kind(),
            audiences: match &self.ask.wanted {
                Wanted::Jwt(audiences) => audiences.clone(),
                Wanted::X509(_) | Wanted::Wit(_) => Arc::new([]),
            },
            key: match self.ask.wanted.key() {
                Some(Key::Proved(key)) => Some((0, key.clone())),
                _ => None,
            },
            jwt_algorithm: spec.jwt_algorithm,
            federates_with: spec.federates_with.clone(),
            rendered,
            validity,
            ttl,
            renew_at: self.now + ttl / 2,
        }
    }
}

/// A resource that is asked for; one that is damaged refuses.
fn resource(
    found: Result<Option<Arc<Resource>>, StoreError>,
) -> Result<Option<Arc<Resource>>, Refused> {
    found.map_err(|error| Refused::new(Denial::Damaged, error.to_string()))
}

fn unknown(why: &str) -> Refused {
    Refused::new(Denial::UnknownWorkloadIdentity, why)
}

/// Whether a document of this kind can be granted at all, whatever it is for.
pub(super) fn check_document(keyring: &Keyring, wanted: &Wanted) -> Result<(), Refused> {
    match wanted {
        Wanted::Jwt(audiences) => check_audiences(audiences)?,
        Wanted::Wit(_) if !keyring.has_wit() => {
            return Err(Refused::new(Denial::WitOff, "WIT-SVIDs are switched off"));
        }
        Wanted::Wit(Key::Proved(key)) if key.jwk().is_none() => {
            let detail = "the key has no algorithm for a proof of possession: use ECDSA or RSA";
            return Err(Refused::new(Denial::InvalidCsr, detail));
        }
        Wanted::X509(_) | Wanted::Wit(_) => {}
    }
    match wanted.key() {
        Some(Key::Unusable(refused)) => Err(refused.clone()),
        _ => Ok(()),
    }
}

/// Longest audiences of a token, all together: it travels in HTTP headers, and nobody reads
/// one of more than 64 KiB.
const AUDIENCES_MAX: usize = 8 * 1024;

/// JW-08: at least one audience; none is empty, none too long.
fn check_audiences(audiences: &[String]) -> Result<(), Refused> {
    use identity::jwt_svid::{MAX_AUDIENCE, MAX_AUDIENCES};
    let detail = if audiences.is_empty() {
        "a JWT-SVID needs an audience: name the service that it is for".to_owned()
    } else if audiences.len() > MAX_AUDIENCES {
        format!("{} audiences; at most {MAX_AUDIENCES}", audiences.len())
    } else if let Some(place) = audiences.iter().position(|audience| {
        audience.is_empty()
            || audience.len() > MAX_AUDIENCE
            || audience.chars().any(char::is_control)
    }) {
        format!("audience {place}: 1 to {MAX_AUDIENCE} bytes without control characters")
    } else if audiences.iter().map(String::len).sum::<usize>() > AUDIENCES_MAX {
        format!("audiences of more than {AUDIENCES_MAX} bytes together")
    } else {
        return Ok(());
    };
    Err(Refused::new(Denial::InvalidAudience, detail))
}

/// A life, if one is wanted, is of whole seconds, at least one.
pub(super) fn check_ttl(wanted: Option<&prost_types::Duration>) -> Result<(), Refused> {
    match wanted {
        Some(ttl) if ttl.nanos != 0 || ttl.seconds <= 0 => {
            let (seconds, nanos) = (ttl.seconds, ttl.nanos);
            let detail = format!(
                "a life of {seconds} s {nanos} ns was asked for: whole seconds, at least 1 s"
            );
            Err(Refused::new(Denial::InvalidTtl, detail))
        }
        _ => Ok(()),
    }
}

/// The wanted life, or the default, cut at the resource's bound.
fn bounded_ttl(
    wanted: Option<&prost_types::Duration>,
    bounds: TtlBounds,
) -> Result<Duration, Refused> {
    check_ttl(wanted)?;
    let wanted = wanted.map_or(bounds.default, |ttl| {
        Duration::from_secs(u64::try_from(ttl.seconds).unwrap_or(0))
    });
    Ok(wanted.min(bounds.maximum))
}

/// Whole seconds left until `end`.
pub(crate) fn remaining(end: SystemTime, now: SystemTime) -> Duration {
    let left = end.duration_since(now).unwrap_or_default();
    // The end has whole seconds and `now` has not: round up to what was granted.
    Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests;
