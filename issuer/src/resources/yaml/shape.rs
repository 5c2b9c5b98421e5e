//! A resource as a tree of values, in the order in which people read it. What is
//! absent or default is left out.

use ::config::{Free, format_duration};
use proto::admin::v1 as pb;
use serde_json::Value;

use super::{json, kind_of, sigstore};
use crate::{
    authority::rfc3339,
    resources::{Kind, wire},
};

/// A mapping that is being put together.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, Free)>);

impl Fields {
    pub(super) fn with(mut self, key: &str, value: Free) -> Self {
        self.0.push((key.to_owned(), value));
        self
    }

    /// Left out if empty.
    pub(super) fn text(self, key: &str, text: &str) -> Self {
        match text {
            "" => self,
            text => self.with(key, Free::Text(text.to_owned())),
        }
    }

    pub(super) fn texts(self, key: &str, list: &[String]) -> Self {
        match list {
            [] => self,
            list => self.with(key, texts(list)),
        }
    }

    fn life(self, key: &str, life: Option<&prost_types::Duration>) -> Self {
        match life.and_then(wire::duration) {
            Some(life) => self.text(key, &format_duration(life)),
            None => self,
        }
    }

    pub(super) fn list(self, key: &str, items: Vec<Free>) -> Self {
        match items.is_empty() {
            true => self,
            false => self.with(key, Free::List(items)),
        }
    }

    /// Left out if there is nothing in it.
    pub(super) fn fields(self, key: &str, inner: Self) -> Self {
        match inner.0.is_empty() {
            true => self,
            false => self.with(key, inner.into()),
        }
    }
}

impl From<Fields> for Free {
    fn from(fields: Fields) -> Self {
        Self::Map(fields.0)
    }
}

fn texts(list: &[String]) -> Free {
    Free::List(list.iter().cloned().map(Free::Text).collect())
}

/// The whole document.
pub(super) fn of(resource: &pb::Resource) -> Free {
    let kind = kind_of(resource).map_or("", Kind::as_str);
    let metadata = resource.metadata.clone().unwrap_or_default();
    let mut labels: Vec<_> = metadata.labels.into_iter().collect();
    labels.sort();
    let labels = labels
        .into_iter()
        .map(|(key, value)| (key, Free::Text(value)))
        .collect();
    let expires = metadata.expires.as_ref().and_then(wire::moment);
    let mut told = Fields::default()
        .with("name", Free::Text(metadata.name))
        .text("description", &metadata.description)
        .fields("labels", Fields(labels));
    if metadata.revision > 0 {
        told = told.with("revision", Free::Integer(metadata.revision.into()));
    }
    told = told.text("expires", &expires.map(rfc3339).unwrap_or_default());
    Fields::default()
        .text("kind", kind)
        .text("version", "v1")
        .with("metadata", told.into())
        .with("spec", resource.spec.as_ref().map_or(Free::Null, spec))
        .into()
}

fn spec(spec: &pb::resource::Spec) -> Free {
    match spec {
        pb::resource::Spec::Bot(spec) => bot(spec),
        pb::resource::Spec::Role(role) => Fields::default()
            .with("allow", selected(&role.workload_identity_labels))
            .fields(
                "deny",
                selector(
                    "workload_identity_labels",
                    &role.deny_workload_identity_labels,
                ),
            )
            .into(),
        pb::resource::Spec::Token(token) => Fields::default()
            .with("roles", texts(&["Bot".to_owned()]))
            .text("join_method", &token.join_method)
            .text("bot_name", &token.bot_name)
            .into(),
        pb::resource::Spec::WorkloadIdentity(spec) => workload_identity(spec).into(),
        pb::resource::Spec::Lock(lock) => Fields::default()
            .fields("target", target(lock.target.as_ref()))
            .text("message", &lock.message)
            .into(),
        pb::resource::Spec::SpiffeFederation(federation) => {
            let bundle = Fields::default().text("bundle", &federation.static_bundle_json);
            let source = Fields::default().fields("static", bundle);
            Fields::default().fields("bundle_source", source).into()
        }
        pb::resource::Spec::SigstorePolicy(policy) => sigstore::shape(policy).into(),
    }
}

fn bot(bot: &pb::BotSpec) -> Free {
    let traits = bot.traits.iter().map(|one| {
        Fields::default()
            .text("name", &one.name)
            .with("values", texts(&one.values))
            .into()
    });
    Fields::default()
        .with("roles", texts(&bot.roles))
        .list("traits", traits.collect())
        .life("max_session_ttl", bot.max_session_ttl.as_ref())
        .into()
}

fn selected(selectors: &[pb::LabelSelector]) -> Free {
    selector("workload_identity_labels", selectors).into()
}

fn selector(key: &str, selectors: &[pb::LabelSelector]) -> Fields {
    let selectors = selectors
        .iter()
        .map(|selector| (selector.key.clone(), texts(&selector.values)));
    Fields::default().fields(key, Fields(selectors.collect()))
}

fn target(target: Option<&pb::lock_spec::Target>) -> Fields {
    use pb::lock_spec::Target;
    let (key, value) = match target {
        None => return Fields::default(),
        Some(Target::Bot(value)) => ("bot", value),
        Some(Target::BotInstanceId(value)) => ("bot_instance_id", value),
        Some(Target::JoinToken(value)) => ("join_token", value),
        Some(Target::Role(value)) => ("role", value),
        Some(Target::WorkloadIdentity(value)) => ("workload_identity", value),
        Some(Target::SpiffeId(value)) => ("spiffe_id", value),
    };
    Fields::default().text(key, value)
}

fn workload_identity(spec: &pb::WorkloadIdentitySpec) -> Fields {
    let rules = Fields::default()
        .list("allow", spec.allow.iter().map(rule).collect())
        .list("deny", spec.deny.iter().map(rule).collect());
    let subject = spec.x509_subject.clone().unwrap_or_default();
    let subject = Fields::default()
        .text("common_name", &subject.common_name)
        .text("organization", &subject.organization)
        .text("organizational_unit", &subject.organizational_unit);
    let x509 = Fields::default()
        .life("maximum_ttl", spec.x509_maximum_ttl.as_ref())
        .life("default_ttl", spec.x509_default_ttl.as_ref())
        .texts("dns_sans", &spec.dns_sans)
        .texts("ip_sans", &spec.ip_sans)
        .fields("subject_template", subject);
    let mut jwt = Fields::default()
        .life("maximum_ttl", spec.jwt_maximum_ttl.as_ref())
        .life("default_ttl", spec.jwt_default_ttl.as_ref())
        .text("algorithm", &spec.jwt_algorithm);
    if let Ok(claims) = serde_json::from_str::<Value>(&spec.jwt_extra_claims_json) {
        jwt = jwt.with("extra_claims", json::free(claims));
    }
    let wit = Fields::default()
        .life("maximum_ttl", spec.wit_maximum_ttl.as_ref())
        .life("default_ttl", spec.wit_default_ttl.as_ref());
    let spiffe = Fields::default()
        .text("id", &spec.spiffe_path)
        .text("hint", &spec.hint)
        .fields("x509", x509)
        .fields("jwt", jwt)
        .fields("wit", wit)
        .texts("federates_with", &spec.federates_with);
    Fields::default()
        .fields("rules", rules)
        .fields("spiffe", spiffe)
}

fn rule(rule: &pb::Rule) -> Free {
    let conditions = rule.conditions.iter().map(condition).collect();
    let mut told = Fields::default()
        .text("description", &rule.description)
        .text("expression", &rule.expression)
        .list("conditions", conditions);
    if rule.require_verified {
        told = told.with("require_verified", Free::Boolean(true));
    }
    told.into()
}

fn condition(condition: &pb::Condition) -> Free {
    use pb::condition::Operator;
    let value = |key: &str, value: &str| {
        let value = Fields::default().with("value", Free::Text(value.to_owned()));
        Fields::default().with(key, value.into())
    };
    let values = |key: &str, values: &pb::Values| {
        let values = Fields::default().with("values", texts(&values.values));
        Fields::default().with(key, values.into())
    };
    let operator = match &condition.operator {
        None => Fields::default(),
        Some(Operator::Eq(text)) => value("eq", text),
        Some(Operator::NotEq(text)) => value("not_eq", text),
        Some(Operator::In(list)) => values("in", list),
        Some(Operator::NotIn(list)) => values("not_in", list),
        Some(Operator::Matches(text)) => value("matches", text),
        Some(Operator::Prefix(text)) => value("prefix", text),
    };
    let mut told = Fields::default().text("attribute", &condition.attribute);
    told.0.extend(operator.0);
    told.into()
}
