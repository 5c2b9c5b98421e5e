//! Resources as they travel: `tbot.admin.v1.Resource`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use proto::admin::v1 as pb;

use super::{
    BotSpec, DnsName, LabelSelector, Metadata, NameError, Resource, ResourceName, RoleSpec, Spec,
    SpiffePath, TokenSecret, TokenSpec, WorkloadIdentitySpec, X509_TTL_CAP, check_label,
};

/// Reads and validates a resource. This is the only door: YAML, the admin API
/// and the store all come through it.
pub fn from_wire(resource: pb::Resource) -> Result<Resource, NameError> {
    let metadata = resource
        .metadata
        .ok_or_else(|| NameError::new("resource", "", "it has no metadata"))?;
    let spec = resource
        .spec
        .ok_or_else(|| NameError::new("resource", &metadata.name, "it has no spec"))?;
    for (key, value) in &metadata.labels {
        check_label(key, value)?;
    }
    let expires = match &metadata.expires {
        Some(timestamp) => Some(moment(timestamp).ok_or_else(|| {
            let value = timestamp.seconds.to_string();
            NameError::new("expires", &value, "a time from 1970 to 9999 is expected")
        })?),
        None => None,
    };
    let is_token = matches!(spec, pb::resource::Spec::Token(_));
    if expires.is_some() && !is_token {
        let why = "only tokens expire: remove metadata.expires";
        return Err(NameError::new("resource", &metadata.name, why));
    }
    let (name, spec) = match spec {
        pb::resource::Spec::Token(token) => token_from_wire(&metadata.name, token)?,
        pb::resource::Spec::Bot(bot) => (
            ResourceName::parse(&metadata.name)?,
            Spec::Bot(BotSpec {
                roles: names_once(bot.roles)?,
            }),
        ),
        pb::resource::Spec::Role(role) => {
            let keys = role
                .workload_identity_labels
                .into_iter()
                .map(|selector| (selector.key, selector.values));
            (
                ResourceName::parse(&metadata.name)?,
                Spec::Role(RoleSpec {
                    workload_identity_labels: LabelSelector::new(keys)?,
                }),
            )
        }
        pb::resource::Spec::Lock(_) | pb::resource::Spec::SpiffeFederation(_) => {
            let why = "this kind is not served yet";
            return Err(NameError::new("resource", &metadata.name, why));
        }
        pb::resource::Spec::WorkloadIdentity(spec) => (
            ResourceName::parse(&metadata.name)?,
            Spec::WorkloadIdentity(workload_identity_from_wire(spec)?),
        ),
    };
    Ok(Resource {
        metadata: Metadata {
            name,
            labels: metadata.labels.into_iter().collect::<BTreeMap<_, _>>(),
            revision: metadata.revision,
            expires,
        },
        spec,
    })
}

fn token_from_wire(name: &str, token: pb::TokenSpec) -> Result<(ResourceName, Spec), NameError> {
    if token.join_method != "token" {
        let why = "only the join method `token` is known";
        return Err(NameError::new("join_method", &token.join_method, why));
    }
    let bot_name = ResourceName::parse(&token.bot_name)?;
    let secret = TokenSecret::parse(name)?;
    let spec = Spec::Token(TokenSpec {
        bot_name,
        secret: Some(secret.clone()),
    });
    Ok((secret.public_name(), spec))
}

fn workload_identity_from_wire(
    spec: pb::WorkloadIdentitySpec,
) -> Result<WorkloadIdentitySpec, NameError> {
    if spec.hint.len() > 1024 || spec.hint.chars().any(char::is_control) {
        let why = "at most 1024 bytes without control characters";
        return Err(NameError::new("hint", &spec.hint, why));
    }
    let mut dns_sans = Vec::with_capacity(spec.dns_sans.len());
    for name in &spec.dns_sans {
        let name = DnsName::parse(name)?;
        if dns_sans.contains(&name) {
            return Err(NameError::new(
                "DNS name",
                name.as_str(),
                "it is given twice",
            ));
        }
        dns_sans.push(name);
    }
    if dns_sans.len() > 64 {
        let why = "at most 64 names are accepted";
        return Err(NameError::new("dns_sans", "", why));
    }
    let x509_maximum_ttl = match &spec.x509_maximum_ttl {
        None => None,
        Some(ttl) => Some(whole_seconds(ttl, X509_TTL_CAP).ok_or_else(|| {
            NameError::new(
                "x509.maximum_ttl",
                &format!("{} s {} ns", ttl.seconds, ttl.nanos),
                "whole seconds, at least 1 s, at most 14 d",
            )
        })?),
    };
    Ok(WorkloadIdentitySpec {
        path: SpiffePath::parse(&spec.spiffe_path)?,
        hint: spec.hint,
        dns_sans,
        x509_maximum_ttl,
    })
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

/// A positive duration of whole seconds, at most `cap`.
pub fn whole_seconds(wire: &prost_types::Duration, cap: Duration) -> Option<Duration> {
    let duration = duration(wire)?;
    (duration.subsec_nanos() == 0 && !duration.is_zero() && duration <= cap).then_some(duration)
}

fn names_once(names: Vec<String>) -> Result<Vec<ResourceName>, NameError> {
    let mut parsed = Vec::with_capacity(names.len());
    for name in names {
        let name = ResourceName::parse(&name)?;
        if !parsed.contains(&name) {
            parsed.push(name);
        }
    }
    Ok(parsed)
}

/// Writes a resource. A token's secret is not in it: its name is the public one.
pub fn to_wire(resource: &Resource) -> pb::Resource {
    let metadata = &resource.metadata;
    let spec = match &resource.spec {
        Spec::Bot(bot) => pb::resource::Spec::Bot(pb::BotSpec {
            roles: bot.roles.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }),
        Spec::Role(role) => pb::resource::Spec::Role(pb::RoleSpec {
            workload_identity_labels: role
                .workload_identity_labels
                .iter()
                .map(|(key, values)| pb::LabelSelector {
                    key: key.clone(),
                    values: values.clone(),
                })
                .collect(),
            ..Default::default()
        }),
        Spec::Token(token) => pb::resource::Spec::Token(pb::TokenSpec {
            join_method: "token".to_owned(),
            bot_name: token.bot_name.to_string(),
        }),
        Spec::WorkloadIdentity(spec) => {
            pb::resource::Spec::WorkloadIdentity(pb::WorkloadIdentitySpec {
                spiffe_path: spec.path.as_str().to_owned(),
                hint: spec.hint.clone(),
                dns_sans: spec
                    .dns_sans
                    .iter()
                    .map(|name| name.as_str().to_owned())
                    .collect(),
                x509_maximum_ttl: spec.x509_maximum_ttl.map(|ttl| prost_types::Duration {
                    seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
                    nanos: 0,
                }),
                ..Default::default()
            })
        }
    };
    pb::Resource {
        metadata: Some(pb::Metadata {
            name: metadata.name.to_string(),
            labels: metadata.labels.clone().into_iter().collect(),
            revision: metadata.revision,
            expires: metadata.expires.map(prost_types::Timestamp::from),
            ..Default::default()
        }),
        spec: Some(spec),
    }
}
