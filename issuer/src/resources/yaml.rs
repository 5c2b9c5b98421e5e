//! Resources as YAML, in Teleport's shape:
//!
//! ```yaml
//! kind: workload_identity
//! version: v1
//! metadata:
//!   name: web
//!   labels: {env: prod}
//! spec:
//!   rules:
//!     allow:
//!       - conditions:
//!           - attribute: join.github.repository
//!             eq: {value: acme/web}
//!   spiffe:
//!     id: /apps/web
//!     hint: web
//!     x509: {maximum_ttl: 1h, dns_sans: [web.example.org]}
//! ```
//!
//! What [`write()`] gives, [`read()`] takes. Reading takes the document apart and no
//! more; whether it makes sense is for [`wire::from_wire`] to say, and what that says
//! is told at the line and column of the field.

mod json;
mod read;
mod shape;
mod sigstore;

use std::collections::{HashMap, HashSet};

use ::config::{Document, Mistake, Mistakes};
use proto::admin::v1 as pb;

use super::{Kind, wire};

pub use self::json::{to_json, value as free_to_json};

/// Reads every document of `text`, each checked as the server will check it.
/// The error lists every mistake, one a line, each with `file:line:column`.
pub fn read(file: &str, text: &str) -> Result<Vec<pb::Resource>, Mistakes> {
    let (documents, mut mistakes) = Document::parse_each(file, text);
    let mut resources = Vec::with_capacity(documents.len());
    let mut names = HashMap::new();
    for document in &documents {
        let (resource, found) = document.read(read::resource);
        if let Some(resource) = resource {
            mistakes.extend(told_of(document, &resource, &found));
            mistakes.extend(told_twice(document, &resource, &mut names));
            resources.push(resource);
        }
        mistakes.extend(found);
    }
    match mistakes.is_empty() {
        true => Ok(resources),
        false => Err(Mistakes::sorted(mistakes)),
    }
}

/// What is wrong with what a document says. Where its shape is wrong already, what
/// follows from that is not told.
fn told_of(document: &Document, resource: &pb::Resource, found: &[Mistake]) -> Vec<Mistake> {
    let Err(invalid) = wire::from_wire(resource.clone()) else {
        return Vec::new();
    };
    let taken: HashSet<_> = found
        .iter()
        .map(|mistake| (mistake.line, mistake.column))
        .collect();
    let told = invalid
        .mistakes()
        .iter()
        .map(|mistake| document.mistake(&mistake.path, mistake.inner, &mistake.message));
    told.filter(|mistake| !taken.contains(&(mistake.line, mistake.column)))
        .collect()
}

type Names = HashMap<(Kind, String), usize>;

fn told_twice(document: &Document, resource: &pb::Resource, names: &mut Names) -> Option<Mistake> {
    let kind = kind_of(resource)?;
    let name = &resource.metadata.as_ref()?.name;
    if name.is_empty() {
        return None;
    }
    let (line, _) = document.position();
    let first = names.insert((kind, name.clone()), line)?;
    // A token's name is its secret.
    let told = match kind {
        Kind::Token => "this token".to_owned(),
        _ => format!("{kind} {name}"),
    };
    let path = ::config::Path::root().key("metadata").key("name");
    let message = format!("{told} stands twice (first on line {first})");
    Some(document.mistake(&path, None, message))
}

/// Writes resources, one document each.
pub fn write(resources: &[pb::Resource]) -> String {
    let documents: Vec<_> = resources
        .iter()
        .map(|resource| ::config::write(&shape::of(resource)))
        .collect();
    documents.join("---\n")
}

/// Writes JSON as YAML.
pub fn write_json(value: serde_json::Value) -> String {
    ::config::write(&json::free(value))
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
        pb::resource::Spec::SigstorePolicy(_) => Kind::SigstorePolicy,
    })
}

#[cfg(test)]
mod tests;
