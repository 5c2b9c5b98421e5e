//! Resources as YAML, in Teleport's shape:
//!
//! ```yaml
//! kind: workload_identity
//! version: v1
//! metadata:
//!   name: web
//!   labels: {env: prod}
//! spec:
//!   spiffe:
//!     id: /apps/web
//!     hint: web
//!     x509: {maximum_ttl: 1h, dns_sans: [web.example.org]}
//! ```
//!
//! What [`write()`] gives, [`read()`] takes.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use ::config::{Document, Fields, format_duration};
use proto::admin::v1 as pb;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Kind, X509_TTL_CAP, wire};
use crate::authority::rfc3339;

/// Reads every document of `text`, each checked as the server will check it.
/// The error lists every mistake, one a line, each with `file:line:column`.
pub fn read(file: &str, text: &str) -> Result<Vec<pb::Resource>, String> {
    let documents = Document::parse_all(file, text).map_err(|mistakes| mistakes.to_string())?;
    let mut resources = Vec::with_capacity(documents.len());
    let mut mistakes = Vec::new();
    for document in documents {
        match document.resolve(read_resource) {
            Ok(resource) => resources.push(resource),
            Err(found) => mistakes.push(found.to_string()),
        }
    }
    if mistakes.is_empty() {
        Ok(resources)
    } else {
        Err(mistakes.join("\n"))
    }
}

fn read_resource(fields: &mut Fields<'_>) -> Option<pb::Resource> {
    let kind = fields.required("kind", |text| {
        text.parse::<Kind>().map_err(|error| error.to_string())
    });
    let version = fields.required("version", |text| match text {
        "v1" => Ok(()),
        _ => Err(format!("version {text:?} is not known: write v1")),
    });
    let metadata = fields.required_mapping("metadata", read_metadata);
    let Some(kind) = kind else {
        fields.ignore_rest();
        return None;
    };
    let spec = fields.required_mapping("spec", |fields| match kind {
        Kind::Bot => Some(pb::resource::Spec::Bot(pb::BotSpec {
            roles: fields.scalars("roles", as_written),
            ..Default::default()
        })),
        Kind::Role => read_role(fields),
        Kind::Token => read_token(fields),
        Kind::WorkloadIdentity => read_workload_identity(fields),
        Kind::Lock | Kind::SpiffeFederation => None,
    });
    version?;
    let resource = pb::Resource {
        metadata: Some(metadata?),
        spec: Some(spec?),
    };
    if let Err(error) = wire::from_wire(resource.clone()) {
        fields.mistake("spec", error);
        return None;
    }
    Some(resource)
}

fn as_written(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn read_metadata(fields: &mut Fields<'_>) -> Option<pb::Metadata> {
    let name = fields.required("name", as_written);
    let labels = fields.string_map("labels").into_iter().collect();
    let revision = fields.integer("revision", 0..=u64::MAX >> 1).unwrap_or(0);
    let expires = fields.optional("expires", |text| {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|time| prost_types::Timestamp::from(SystemTime::from(time)))
            .map_err(|_| format!("{text:?} is not a time: write RFC 3339, as 2026-11-21T20:00:00Z"))
    });
    Some(pb::Metadata {
        name: name?,
        labels,
        revision,
        expires,
        ..Default::default()
    })
}

fn read_role(fields: &mut Fields<'_>) -> Option<pb::resource::Spec> {
    let selectors = fields.mapping("allow", |fields| {
        Some(
            fields
                .string_list_map("workload_identity_labels")
                .into_iter()
                .map(|(key, values)| pb::LabelSelector { key, values })
                .collect(),
        )
    });
    Some(pb::resource::Spec::Role(pb::RoleSpec {
        workload_identity_labels: selectors.unwrap_or_default(),
        ..Default::default()
    }))
}

fn read_token(fields: &mut Fields<'_>) -> Option<pb::resource::Spec> {
    // Teleport's tokens name what may join; here it is always a bot.
    fields.scalars("roles", |role| match role {
        "Bot" => Ok(()),
        _ => Err(format!(
            "role {role:?} cannot join by a token here: write Bot"
        )),
    });
    let join_method = fields.required("join_method", as_written);
    let bot_name = fields.required("bot_name", as_written);
    Some(pb::resource::Spec::Token(pb::TokenSpec {
        join_method: join_method?,
        bot_name: bot_name?,
    }))
}

fn read_workload_identity(fields: &mut Fields<'_>) -> Option<pb::resource::Spec> {
    fields.required_mapping("spiffe", |fields| {
        let id = fields.required("id", as_written);
        let hint = fields.optional("hint", as_written).unwrap_or_default();
        let mut spec = pb::WorkloadIdentitySpec {
            hint,
            ..Default::default()
        };
        if fields.has("x509") {
            fields.mapping("x509", |fields| {
                spec.x509_maximum_ttl = fields
                    .duration("maximum_ttl", Duration::from_secs(1)..=X509_TTL_CAP)
                    .map(|ttl| prost_types::Duration {
                        seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
                        nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or(0),
                    });
                spec.dns_sans = fields.scalars("dns_sans", as_written);
                Some(())
            })?;
        }
        spec.spiffe_path = id?;
        Some(pb::resource::Spec::WorkloadIdentity(spec))
    })
}

/// The kind of a resource on the wire.
pub fn kind_of(resource: &pb::Resource) -> Option<Kind> {
    Some(match resource.spec.as_ref()? {
        pb::resource::Spec::Bot(_) => Kind::Bot,
        pb::resource::Spec::Role(_) => Kind::Role,
        pb::resource::Spec::Token(_) => Kind::Token,
        pb::resource::Spec::WorkloadIdentity(_) => Kind::WorkloadIdentity,
        pb::resource::Spec::Lock(_) => Kind::Lock,
        pb::resource::Spec::SpiffeFederation(_) => Kind::SpiffeFederation,
    })
}

/// Writes resources, one document each.
pub fn write(resources: &[pb::Resource]) -> String {
    let mut text = String::new();
    for (index, resource) in resources.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        // Writing to a String cannot fail.
        let _ = write_resource(&mut text, resource);
    }
    text
}

fn write_resource(out: &mut String, resource: &pb::Resource) -> std::fmt::Result {
    let (Some(kind), Some(metadata), Some(spec)) =
        (kind_of(resource), &resource.metadata, &resource.spec)
    else {
        return Ok(());
    };
    writeln!(out, "kind: {kind}\nversion: v1\nmetadata:")?;
    writeln!(out, "  name: {}", scalar(&metadata.name))?;
    if !metadata.labels.is_empty() {
        writeln!(out, "  labels:")?;
        let mut labels: Vec<_> = metadata.labels.iter().collect();
        labels.sort();
        for (key, value) in labels {
            writeln!(out, "    {}: {}", scalar(key), scalar(value))?;
        }
    }
    if metadata.revision > 0 {
        writeln!(out, "  revision: {}", metadata.revision)?;
    }
    if let Some(expires) = metadata
        .expires
        .and_then(|at| SystemTime::try_from(at).ok())
    {
        writeln!(out, "  expires: {}", scalar(&rfc3339(expires)))?;
    }
    write_spec(out, spec)
}

fn write_spec(out: &mut String, spec: &pb::resource::Spec) -> std::fmt::Result {
    match spec {
        pb::resource::Spec::Lock(_) | pb::resource::Spec::SpiffeFederation(_) => Ok(()),
        pb::resource::Spec::Bot(bot) => writeln!(out, "spec:\n  roles: {}", flow(&bot.roles)),
        pb::resource::Spec::Role(role) if role.workload_identity_labels.is_empty() => {
            writeln!(out, "spec:\n  allow: {{}}")
        }
        pb::resource::Spec::Role(role) => {
            writeln!(out, "spec:\n  allow:\n    workload_identity_labels:")?;
            for selector in &role.workload_identity_labels {
                let values = flow(&selector.values);
                writeln!(out, "      {}: {values}", scalar(&selector.key))?;
            }
            Ok(())
        }
        pb::resource::Spec::Token(token) => {
            writeln!(out, "spec:\n  roles: [Bot]")?;
            writeln!(out, "  join_method: {}", scalar(&token.join_method))?;
            writeln!(out, "  bot_name: {}", scalar(&token.bot_name))
        }
        pb::resource::Spec::WorkloadIdentity(spec) => {
            writeln!(
                out,
                "spec:\n  spiffe:\n    id: {}",
                scalar(&spec.spiffe_path)
            )?;
            if !spec.hint.is_empty() {
                writeln!(out, "    hint: {}", scalar(&spec.hint))?;
            }
            if spec.x509_maximum_ttl.is_none() && spec.dns_sans.is_empty() {
                return Ok(());
            }
            writeln!(out, "    x509:")?;
            if let Some(ttl) = &spec.x509_maximum_ttl {
                let ttl = Duration::from_secs(u64::try_from(ttl.seconds).unwrap_or(0));
                writeln!(out, "      maximum_ttl: {}", format_duration(ttl))?;
            }
            if !spec.dns_sans.is_empty() {
                writeln!(out, "      dns_sans: {}", flow(&spec.dns_sans))?;
            }
            Ok(())
        }
    }
}

fn flow(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| scalar(value)).collect();
    format!("[{}]", values.join(", "))
}

/// Plain where no reader of YAML could take it for anything but text, else in
/// double quotes (JSON's are YAML's).
fn scalar(text: &str) -> String {
    let plain = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    let word = text.to_ascii_lowercase();
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if plain && !reserved.contains(&word.as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}
