//! A document taken apart. What is wrong is recorded and stands empty, so that the
//! rest can still be checked.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use ::config::Fields;
use proto::admin::v1 as pb;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{json, sigstore};
use crate::resources::{BOT_TTL_CAP, Kind, SvidKind, wire};

/// The whole document.
pub(super) fn resource(fields: &mut Fields<'_>) -> Option<pb::Resource> {
    let kind = fields.required("kind", |text| {
        text.parse::<Kind>().map_err(|error| error.to_string())
    });
    fields.required("version", |text| match text {
        "v1" => Ok(()),
        _ => Err(format!("version {text:?} is not known: write v1")),
    });
    let metadata = fields.required_mapping("metadata", |fields| Some(metadata(fields)));
    let Some(kind) = kind else {
        fields.ignore_rest();
        return None;
    };
    let spec = fields.required_mapping("spec", |fields| {
        Some(match kind {
            Kind::Bot => pb::resource::Spec::Bot(bot(fields)),
            Kind::Role => pb::resource::Spec::Role(role(fields)),
            Kind::Token => pb::resource::Spec::Token(token(fields)),
            Kind::WorkloadIdentity => {
                pb::resource::Spec::WorkloadIdentity(workload_identity(fields))
            }
            Kind::Lock => pb::resource::Spec::Lock(lock(fields)),
            Kind::SpiffeFederation => pb::resource::Spec::SpiffeFederation(federation(fields)),
            Kind::SigstorePolicy => pb::resource::Spec::SigstorePolicy(sigstore::policy(fields)),
        })
    });
    Some(pb::Resource { metadata, spec })
}

fn as_written(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn text(fields: &mut Fields<'_>, key: &'static str) -> String {
    fields.optional(key, as_written).unwrap_or_default()
}

pub(super) fn required(fields: &mut Fields<'_>, key: &'static str) -> String {
    fields.required(key, as_written).unwrap_or_default()
}

fn life(
    fields: &mut Fields<'_>,
    key: &'static str,
    range: RangeInclusive<Duration>,
) -> Option<prost_types::Duration> {
    fields.duration(key, range).map(wire::duration_to_wire)
}

fn up_to(most: Duration) -> RangeInclusive<Duration> {
    Duration::from_secs(1)..=most
}

fn metadata(fields: &mut Fields<'_>) -> pb::Metadata {
    pb::Metadata {
        name: required(fields, "name"),
        description: text(fields, "description"),
        labels: fields.string_map("labels").into_iter().collect(),
        revision: fields.integer("revision", 0..=u64::MAX >> 1).unwrap_or(0),
        expires: fields.optional("expires", |text| {
            OffsetDateTime::parse(text, &Rfc3339)
                .map(|time| prost_types::Timestamp::from(SystemTime::from(time)))
                .map_err(|_| {
                    format!("{text:?} is not a time: write RFC 3339, as 2026-11-21T20:00:00Z")
                })
        }),
    }
}

fn bot(fields: &mut Fields<'_>) -> pb::BotSpec {
    pb::BotSpec {
        roles: fields.texts("roles"),
        traits: fields.each("traits", |fields| {
            Some(pb::Trait {
                name: required(fields, "name"),
                values: fields.texts("values"),
            })
        }),
        max_session_ttl: life(fields, "max_session_ttl", up_to(BOT_TTL_CAP)),
    }
}

fn role(fields: &mut Fields<'_>) -> pb::RoleSpec {
    let mut selectors = |key: &'static str| {
        let read = fields.mapping(key, |fields| {
            let keys = fields.string_list_map("workload_identity_labels");
            Some(
                keys.into_iter()
                    .map(|(key, values)| pb::LabelSelector { key, values })
                    .collect(),
            )
        });
        read.unwrap_or_default()
    };
    pb::RoleSpec {
        workload_identity_labels: selectors("allow"),
        deny_workload_identity_labels: selectors("deny"),
    }
}

fn token(fields: &mut Fields<'_>) -> pb::TokenSpec {
    // Teleport's tokens name what may join; here it is always a bot.
    fields.scalars("roles", |role| match role {
        "Bot" => Ok(()),
        _ => Err(format!(
            "role {role:?} cannot join by a token here: write Bot"
        )),
    });
    pb::TokenSpec {
        join_method: required(fields, "join_method"),
        bot_name: required(fields, "bot_name"),
    }
}

fn lock(fields: &mut Fields<'_>) -> pb::LockSpec {
    use pb::lock_spec::Target;
    let message = text(fields, "message");
    let target = fields.required_mapping("target", |fields| {
        let given = [
            ("bot", Target::Bot as fn(String) -> Target),
            ("bot_instance_id", Target::BotInstanceId),
            ("join_token", Target::JoinToken),
            ("role", Target::Role),
            ("workload_identity", Target::WorkloadIdentity),
            ("spiffe_id", Target::SpiffeId),
        ]
        .map(|(key, make)| {
            fields
                .optional(key, as_written)
                .map(|value| (key, make(value)))
        });
        Some(only_one(fields, given.into_iter().flatten().collect()))
    });
    pb::LockSpec {
        target: target.flatten(),
        message,
    }
}

/// The first of what was given. More than one is a mistake.
fn only_one<T>(fields: &mut Fields<'_>, given: Vec<(&'static str, T)>) -> Option<T> {
    if let [(first, _), (second, _), ..] = given.as_slice() {
        let message = format!("`{second}` stands beside `{first}`: give one of them");
        fields.mistake(second, message);
    }
    given.into_iter().next().map(|(_, value)| value)
}

fn federation(fields: &mut Fields<'_>) -> pb::SpiffeFederationSpec {
    let bundle = fields.required_mapping("bundle_source", |fields| {
        if fields.has("https_web") {
            fields.mapping("https_web", |fields| {
                fields.ignore_rest();
                Some(())
            });
            let message = "`https_web`: this issuer does not fetch bundles yet: give the bundle document in bundle_source.static.bundle";
            fields.mistake("https_web", message);
            fields.mapping("static", |fields| Some(text(fields, "bundle")));
            return Some(String::new());
        }
        fields.required_mapping("static", |fields| Some(required(fields, "bundle")))
    });
    pb::SpiffeFederationSpec {
        static_bundle_json: bundle.unwrap_or_default(),
    }
}

fn workload_identity(fields: &mut Fields<'_>) -> pb::WorkloadIdentitySpec {
    let mut spec = pb::WorkloadIdentitySpec::default();
    fields.mapping("rules", |fields| {
        spec.allow = fields.each("allow", |fields| Some(rule(fields)));
        spec.deny = fields.each("deny", |fields| Some(rule(fields)));
        Some(())
    });
    fields.required_mapping("spiffe", |fields| {
        spec.spiffe_path = required(fields, "id");
        spec.hint = text(fields, "hint");
        spec.federates_with = fields.texts("federates_with");
        fields.mapping("x509", |fields| {
            let bounds = up_to(SvidKind::X509.ttl_cap());
            spec.x509_maximum_ttl = life(fields, "maximum_ttl", bounds.clone());
            spec.x509_default_ttl = life(fields, "default_ttl", bounds);
            spec.dns_sans = fields.texts("dns_sans");
            spec.ip_sans = fields.texts("ip_sans");
            spec.x509_subject = fields.mapping("subject_template", |fields| {
                Some(pb::SubjectTemplate {
                    common_name: text(fields, "common_name"),
                    organization: text(fields, "organization"),
                    organizational_unit: text(fields, "organizational_unit"),
                })
            });
            Some(())
        });
        fields.mapping("jwt", |fields| {
            let bounds = up_to(SvidKind::Jwt.ttl_cap());
            spec.jwt_maximum_ttl = life(fields, "maximum_ttl", bounds.clone());
            spec.jwt_default_ttl = life(fields, "default_ttl", bounds);
            spec.jwt_algorithm = text(fields, "algorithm");
            let claims = fields.free("extra_claims");
            spec.jwt_extra_claims_json = claims
                .map(|claims| json::value(claims).to_string())
                .unwrap_or_default();
            Some(())
        });
        fields.mapping("wit", |fields| {
            let bounds = up_to(SvidKind::Wit.ttl_cap());
            spec.wit_maximum_ttl = life(fields, "maximum_ttl", bounds.clone());
            spec.wit_default_ttl = life(fields, "default_ttl", bounds);
            Some(())
        });
        Some(())
    });
    spec
}

fn rule(fields: &mut Fields<'_>) -> pb::Rule {
    pb::Rule {
        description: text(fields, "description"),
        expression: text(fields, "expression"),
        conditions: fields.each("conditions", |fields| Some(condition(fields))),
        require_verified: fields.boolean("require_verified").unwrap_or(false),
    }
}

fn condition(fields: &mut Fields<'_>) -> pb::Condition {
    use pb::condition::Operator;
    let attribute = required(fields, "attribute");
    let mut given = Vec::new();
    for (key, make) in [
        ("eq", Operator::Eq as fn(String) -> Operator),
        ("not_eq", Operator::NotEq),
        ("matches", Operator::Matches),
        ("prefix", Operator::Prefix),
    ] {
        let value = fields.mapping(key, |fields| Some(required(fields, "value")));
        if fields.has(key) {
            given.push((key, make(value.unwrap_or_default())));
        }
    }
    for (key, make) in [
        ("in", Operator::In as fn(pb::Values) -> Operator),
        ("not_in", Operator::NotIn),
    ] {
        let values = fields.mapping(key, |fields| {
            let values = fields.texts("values");
            Some(pb::Values { values })
        });
        if fields.has(key) {
            given.push((key, make(values.unwrap_or_default())));
        }
    }
    pb::Condition {
        attribute,
        operator: only_one(fields, given),
    }
}
